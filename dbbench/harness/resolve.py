"""From the names in a cell to the things they stand for, with every option checked before anything runs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from dbbench.errors import BadInput, did_you_mean
from dbbench.harness.budget import step_count
from dbbench.harness.strangers import blamed, find_class, require_built, require_split
from dbbench.methods.base import Method, Setting
from dbbench.methods.optimizers import OptimizerSettings
from dbbench.networks.base import BaseOptions, InputShape, Network, initialise, place
from dbbench.streams import Streams
from dbbench.suite.cell import Cell, NetworkChoice, TaskChoice
from dbbench.suite.schema import Shared, check
from dbbench.tasks.base import Task

#: How the text of a ValueError begins by which `Method.check` refuses an option.
_OF_A_KEY = re.compile(r"[A-Za-z_]\w*(\[\d+\])?: ")


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
        return self.adopt(self.build_network(task.shape), task)

    def adopt(self, network: Network, task: Task) -> Method:
        """Return the method on a network that has been built; BadInput where it has not set up what it must."""
        try:
            method = self.method(network, task, self.options, self.setting())
            require_built(method)
        except BadInput as error:
            raise BadInput(f"{self.where}: {self.label}.{error}") from error
        return method

    @property
    def label(self) -> str:
        """The key under which the suite has the variant; what follows the dot in its name is the grid's."""
        return f"methods.{self.cell.variant.partition('.')[0]}"

    def network_on_meta(self) -> tuple[Network, InputShape]:
        """Return the network without memory, and what it was built for; BadInput for whatever goes wrong in that."""
        with blamed(f"{self.where}: task.name: '{self.cell.task.name}'"):
            shape = self.task.input_shape(self.task_options)
        with blamed(f"{self.where}: network.name: '{self.cell.network.name}'"), torch.device("meta"):
            return self.build_network(shape), shape

    def on_meta(self) -> Method:
        """Return the method without data or memory, to look at; BadInput for whatever goes wrong in that."""
        network, shape = self.network_on_meta()
        task = object.__new__(self.task)  # what it has without its data: a method may ask it for more than the shape
        task.shape, task.batch_size = shape, self.cell.batch_size
        with blamed(f"{self.where}: {self.label}"), torch.device("meta"):
            return self.adopt(network, task)


def resolve_cell(cell: Cell, where: str) -> Resolved:
    """Find what ``cell`` names and check every option; ``where`` (the suite's file) opens a BadInput's line."""
    label = f"methods.{cell.variant.partition('.')[0]}"
    method: type[Method] = find_class("methods", cell.method, f"{where}: {label}.method", Method)
    task: type[Task] = find_class("tasks", cell.task.name, f"{where}: task.name", Task)
    network: type[Network] = find_class("networks", cell.network.name, f"{where}: network.name", Network)
    size = cell.network.size
    with blamed(f"{where}: network.name: '{cell.network.name}'"):
        sizes = [str(name) for name in network.sizes()]
        preset = network.preset(size) if size in sizes else {"depth": 0}
        if type(preset.get("depth")) is not int:
            raise TypeError(f"its preset '{size}' has no whole number 'depth'")
    if size not in sizes:
        raise BadInput(f"{where}: network.size: unknown size '{size}'{did_you_mean(size, sizes)}")
    overrides = ("method", *Shared.model_fields)
    known = {"task": task.Options.model_fields, "network": network.Options.model_fields}
    known[label] = method.Options.model_fields
    with blamed(f"{where}: task"):
        task_options = check(task.Options, cell.task.model_extra or {}, where, "task", TaskChoice.model_fields, known)
    with blamed(f"{where}: network"):
        extra = cell.network.model_extra or {}
        network_options = check(network.Options, extra, where, "network", NetworkChoice.model_fields, known)
    depth = cell.network.depth or preset["depth"]
    with blamed(f"{where}: {label}"):
        options = check(method.Options, cell.options, where, label, overrides, known)
        try:
            method.check(options, depth)
        except ValueError as error:
            if not _OF_A_KEY.match(str(error)):
                raise
            raise BadInput(f"{where}: {label}.{error}") from error
        try:
            require_split(method.split(options, depth), depth)
        except BadInput as error:
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
    method = resolved.on_meta()
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
        with blamed(f"{where}: methods.{cell.variant}"):
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
    with blamed(f"{where}: task"):
        return task(options, Streams(0), 1, f"{where}: task").dataset_sha256
