"""Kinds that recompute: checkpoints of modules and of functions, reentrant and not, nested, selective, sequential."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    checkpoint_sequential,
    create_selective_checkpoint_contexts,
)

from benchmarks.ledger_steps.catalogue import Setup, Stack, adamw, batch, kind


class _Dropping(Stack):
    """Blocks with dropout between them, so that a recompute has to restore the random-number state."""

    def __init__(self, run: Callable[[nn.Module, Tensor], Tensor], depth: int = 3) -> None:
        super().__init__(depth)
        self.run = run
        self.drop = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = self.run(nn.Sequential(layer, self.drop), x)
        return self.head(x)


def _train(run: Callable[[nn.Module, Tensor], Tensor], *, needs_gradient: bool = False) -> Setup:
    model, (x, y) = _Dropping(run), batch()
    x.requires_grad_(needs_gradient)  # a reentrant checkpoint passes gradients on only if an input wants one
    optimizer = adamw(model)

    def step() -> None:
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
        x.grad = None

    return Setup(step, {"model": model}, [optimizer], {"x": x, "y": y})


@kind("every layer checkpointed, not reentrant")
def checkpoint_module() -> Setup:
    return _train(lambda layer, x: checkpoint(layer, x, use_reentrant=False))


@kind("every layer checkpointed, reentrant")
def checkpoint_module_reentrant() -> Setup:
    return _train(lambda layer, x: checkpoint(layer, x, use_reentrant=True), needs_gradient=True)


def _wide(layer: nn.Module, x: Tensor) -> Tensor:
    """Be a function, not a module, with intermediate results of its own."""
    hidden = torch.tanh(layer(x))
    return x + hidden * torch.sigmoid(hidden)


@kind("plain functions checkpointed, not reentrant", opens="after")
def checkpoint_function() -> Setup:
    return _train(lambda layer, x: checkpoint(partial(_wide, layer), x, use_reentrant=False))


@kind("plain functions checkpointed, reentrant", opens="after")
def checkpoint_function_reentrant() -> Setup:
    run = lambda layer, x: checkpoint(partial(_wide, layer), x, use_reentrant=True)  # noqa: E731
    return _train(run, needs_gradient=True)


@kind("checkpointing without keeping the random-number state")
def checkpoint_without_rng() -> Setup:
    def run(layer: nn.Module, x: Tensor) -> Tensor:
        return checkpoint(layer.__getitem__(0), x, use_reentrant=False, preserve_rng_state=False)  # type: ignore[operator]

    return _train(run)


@kind("a checkpoint around checkpointed layers: recompute within recompute")
def checkpoint_nested() -> Setup:
    def inner(layer: nn.Module, x: Tensor) -> Tensor:
        return checkpoint(layer, x, use_reentrant=False)

    model, (x, y) = _Dropping(inner, depth=2), batch()
    optimizer = adamw(model)

    def step() -> None:
        logits = checkpoint(model, x, use_reentrant=False)
        F.cross_entropy(logits, y).backward()
        optimizer.step()
        optimizer.zero_grad()

    return Setup(step, {"model": model}, [optimizer], {"x": x, "y": y})


@kind("selective checkpointing: results of matrix products kept, the rest made again")
def checkpoint_selective() -> Setup:
    def policy(_context: object, op: object, *_args: object, **_options: object) -> CheckpointPolicy:
        keep = op in (torch.ops.aten.addmm.default, torch.ops.aten.mm.default)
        return CheckpointPolicy.MUST_SAVE if keep else CheckpointPolicy.PREFER_RECOMPUTE

    contexts = partial(create_selective_checkpoint_contexts, policy)
    return _train(lambda layer, x: checkpoint(layer, x, use_reentrant=False, context_fn=contexts))


@kind("checkpoint_sequential over six layers in three segments", opens="after")
def checkpoint_segments() -> Setup:
    model, (x, y) = Stack(6), batch()
    optimizer = adamw(model)

    def step() -> None:
        hidden = checkpoint_sequential(list(model.layers), 3, x, use_reentrant=False)
        F.cross_entropy(model.head(hidden), y).backward()
        optimizer.step()
        optimizer.zero_grad()

    return Setup(step, {"model": model}, [optimizer], {"x": x, "y": y})
