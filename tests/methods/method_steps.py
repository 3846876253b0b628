"""Methods built from a tiny cell, and steps taken along the harness's own course."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from functools import lru_cache
from typing import Any

from tiny_cells import make_cell
from torch import Tensor

from dbbench.harness.budget import course
from dbbench.harness.resolve import Resolved, resolve_cell
from dbbench.harness.tracing import rehearsal
from dbbench.harness.training import Loop
from dbbench.measure.account import Account
from dbbench.measure.ledger import BareLedger as Ledger
from dbbench.methods.base import Method, Plan
from dbbench.suite.cell import Budget, Cell, NetworkChoice, TaskChoice
from dbbench.tasks.base import Task

#: Every built-in method with an option or two that matters, and the toy package's.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "backprop": ("backprop", {}),
    "checkpointing": ("checkpointing", {"policy": "sqrt"}),
    "greedy": ("greedy", {}),
    "greedy_ensemble": ("greedy", {"layers_per_stage": 2, "ensemble": True}),
    "blocks": ("diffusion_blocks", {"blocks": 2}),
    "blocks_active": ("diffusion_blocks", {"blocks": 2, "residency": "active"}),
    "blocks_own_parts": ("diffusion_blocks", {"blocks": 3, "shared": "per_block", "residency": "state"}),
    "accumulation": ("toy_methods.accumulation:Accumulation", {"parts": 4}),
}


def resolved(method: str, depth: int = 3, size: str = "micro", **changes: Any) -> Resolved:
    """Return a resolved cell on the digits; what is no field of a cell is an option of ``method``."""
    fields = {k: changes.pop(k) for k in ("seed", "batch_size", "optimizer", "precision", "budget") if k in changes}
    extra = {k: changes.pop(k) for k in ("gate_start", "dropout") if k in changes}
    fields["network"] = NetworkChoice(name="vit", size=size, depth=depth, patch=4, **extra)
    cell = make_cell(method, method, options=changes, **({"batch_size": 16} | fields))
    return resolve_cell(cell, cell.suite)


@lru_cache(maxsize=32)
def load_task(resolved_cell_json: str) -> Task:
    """Load a task once for all cells that have it alike."""
    return resolve_cell(Cell.model_validate_json(resolved_cell_json), "tiny").load_task()


def task_of(what: Resolved) -> Task:
    """Return the task of a cell; what method is trained on it cannot matter."""
    body = what.cell.model_copy(update={"method": "backprop", "variant": "backprop", "options": {}})
    return load_task(body.model_dump_json())


def built(method: str, **changes: Any) -> tuple[Method, Loop]:
    """Return a method, ready for its first step, and the loop that takes it."""
    what = resolved(method, **changes)
    task = task_of(what)
    fresh = what.build(task)
    return fresh, Loop(fresh, task, what.cell)


def plans_of(method: Method, loop: Loop, steps: int) -> list[Plan]:
    """Return the course of a budget of ``steps`` batches."""
    batch_size = loop.cell.batch_size
    return course(method, Budget(kind="samples", value=steps * batch_size), batch_size)


def train(loop: Loop, plans: Iterable[Plan]) -> list[float]:
    """Take the steps and return their losses."""
    return [loop.step(plan).item() for plan in plans]


def values(method: Method) -> dict[str, Tensor]:
    """Return a copy of every parameter by name, wherever it was kept."""
    saved = method.state()["model"]
    return {name: saved[name].clone() for name, _ in method.model.named_parameters()}


def account_of(what: Resolved) -> Account:
    """Return the ledger's account of a rehearsal: the first half of `measure`, for where one half is enough."""
    task = task_of(what)
    with Ledger() as ledger:
        method = what.build(task)
        ledger.watch(method.model, lambda: method.optimizers, method.held)
        for plan, traced in rehearsal(method):
            batch = task.train_batch(plan.block_step)
            with ledger.step(plan.step, plan.block) if traced else nullcontext():
                method.step(batch, plan)
    return ledger.account()


def twelve_layers(method: str, depth: int = 12, **options: Any) -> Resolved:
    """Return the network that the paper's claims are checked on: tiny ViT, batch 64 of the Fashion-MNIST slice."""
    network = NetworkChoice(name="vit", size="tiny", depth=depth)
    task = TaskChoice(name="fashion_mnist_10k")
    cell = make_cell(method, method, task=task, network=network, batch_size=64, options=options)
    return resolve_cell(cell, cell.suite)
