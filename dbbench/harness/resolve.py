"""From the names in a cell to the things they stand for, with every option checked before anything runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from types import SimpleNamespace
from typing import Any, cast

import torch

from dbbench import plugins
from dbbench.errors import BadInput, did_you_mean
from dbbench.harness.budget import step_count
from dbbench.methods.base import Method, Setting
from dbbench.methods.optimizers import OptimizerSettings
from dbbench.networks.base import BaseOptions, InputShape, Network, initialise, place
from dbbench.streams import Streams
from dbbench.suite.cell import Cell, NetworkChoice, TaskChoice
from dbbench.suite.schema import Shared, check
from dbbench.tasks.base import Task


@dataclass(frozen=True)
class Resolved:
    """A cell with its classes found and its options validated; ``depth`` is the network's number of layers."""

    cell: Cell
    where: str
    method: type[Method]
    options: BaseOptions
    task: type[Task]
    task_options: BaseOptions
    network: type[Network]
    network_options: BaseOptions
    depth: int

    def setting(self) -> Setting:
        """Return what the suite fixes for every method alike."""
        cell = self.cell
        settings = OptimizerSettings(**cell.optimizer.model_dump(exclude={"name"}))
        return Setting(settings, cell.precision, Streams(cell.seed, cell.device), cell.device)

    def load_task(self) -> Task:
        """Load the data. It raises BadInput when they are missing or corrupt."""
        return self.task(
            self.task_options, Streams(self.cell.seed, self.cell.device), self.cell.batch_size, f"{self.where}: task"
        )

    def build_network(self, shape: InputShape) -> Network:
        """Build the network for inputs of ``shape`` and fill it from the seed, on the cell's device and precision."""
        cell, choice = self.cell, self.cell.network
        try:
            width = self.network.numbers(choice.size, self.network_options).get("width", 0)
            condition_width = self.method.condition_width(self.options, width)
            network = self.network.build(choice.size, shape, self.network_options, choice.depth, condition_width)
        except BadInput as error:
            raise BadInput(f"{self.where}: {error}") from error
        initialise(network, Streams(cell.seed))
        dtype = torch.bfloat16 if cell.precision == "bf16" else torch.float32
        place(network, cell.device, dtype)
        return network

    def build(self, task: Task) -> Method:
        """Return the method, ready for its first step on ``task``."""
        network = self.build_network(task.shape)
        try:
            return self.method(network, task, self.options, self.setting())
        except BadInput as error:
            raise BadInput(f"{self.where}: methods.{self.cell.variant.partition('.')[0]}.{error}") from error


def resolve_cell(cell: Cell, where: str) -> Resolved:
    """Find what ``cell`` names and check every option; ``where`` (the suite's file) opens a BadInput's line."""
    label = f"methods.{cell.variant.partition('.')[0]}"  # what follows the dot is the grid's
    method = plugins.find("methods", cell.method, f"{where}: {label}.method")
    task = plugins.find("tasks", cell.task.name, f"{where}: task.name")
    network = plugins.find("networks", cell.network.name, f"{where}: network.name")
    if cell.network.size not in network.sizes():
        hint = did_you_mean(cell.network.size, network.sizes())
        raise BadInput(f"{where}: network.size: unknown size '{cell.network.size}'{hint}")
    overrides = ("method", *Shared.model_fields)
    known = {"task": task.Options.model_fields, "network": network.Options.model_fields}
    known[label] = method.Options.model_fields
    options = check(method.Options, cell.options, where, label, overrides, known)
    task_options = check(task.Options, cell.task.model_extra or {}, where, "task", TaskChoice.model_fields, known)
    extra = cell.network.model_extra or {}
    network_options = check(network.Options, extra, where, "network", NetworkChoice.model_fields, known)
    depth = cell.network.depth or network.preset(cell.network.size)["depth"]
    try:
        method.check(options, depth)
    except ValueError as error:
        raise BadInput(f"{where}: {label}.{error}") from error
    return Resolved(cell, where, method, options, task, task_options, network, network_options, depth)


def resolve(cells: Iterable[Cell], where: str) -> None:
    """Check every cell as far as that goes without its data: names, options, shapes, the budget's first step."""
    for cell in _one_seed(cells):
        describe(cell, where)


def _one_seed(cells: Iterable[Cell]) -> list[Cell]:
    """Return one cell for each configuration that seeds repeat."""
    return list({cell.model_copy(update={"seed": 0}).model_dump_json(): cell for cell in cells}.values())


def describe(cell: Cell, where: str = "suite") -> dict[str, Any]:
    """Return what ``cell`` would train, for a dry run: sizes, blocks, steps. No data is read, no weight is drawn."""
    resolved = resolve_cell(cell.model_copy(update={"device": "cpu"}), where)
    shape = resolved.task.input_shape(resolved.task_options)
    with torch.device("meta"):
        method = resolved.build(cast(Task, SimpleNamespace(shape=shape)))
    row: dict[str, Any] = {
        "variant": cell.variant,
        "method": cell.method,
        "network": f"{cell.network.name} {cell.network.size}",
        "depth": resolved.depth,
        "parameters_count": sum(p.numel() for p in method.model.parameters()),
        "blocks": method.blocks,
        "layers_trained_per_step": method.layers_per_block,
        "budget": f"{cell.budget.value:,.0f} {cell.budget.kind}",
        "steps": None,
        "samples": None,
        "layer_updates": None,
    }
    if cell.budget.kind in ("layer_updates", "samples"):
        try:
            steps = step_count(method, cell.budget, cell.batch_size)
        except BadInput as error:
            raise BadInput(f"{where}: methods.{cell.variant}: {error}") from error
        row["steps"], row["samples"] = steps, steps * cell.batch_size
        if len(set(method.layers_per_block)) == 1:
            row["layer_updates"] = steps * method.layers_per_block[0]
    return row


def dataset_sha256(cell: Cell, where: str = "suite") -> str:
    """Return the hash of the data that ``cell`` trains on; BadInput when they are missing or corrupt."""
    resolved = resolve_cell(cell, where)
    return _sha256(resolved.task, resolved.task_options.model_dump_json(), where)


@lru_cache(maxsize=8)
def _sha256(task: type[Task], options_json: str, where: str) -> str:
    options = task.Options.model_validate_json(options_json)
    return task(options, Streams(0), 1, f"{where}: task").dataset_sha256
