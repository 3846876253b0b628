"""Trainings of a stranger, for ``dbbench profile``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

WIDTH, BATCH = 32, 64
Made = tuple[nn.Module, torch.optim.Optimizer, Callable[[], None]]


def make_step(device: str = "cpu") -> Made:
    """A classifier with a convolution, moved to the device as most code does."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 64, 10)).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    images, labels = torch.randn(BATCH, 3, 8, 8), torch.randint(10, (BATCH,))

    def step() -> None:
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    return model, optimizer, step


def as_dict() -> dict[str, Any]:
    """Linear, with its batch declared; gives a dict."""
    model = nn.Linear(WIDTH, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    batch = torch.randn(BATCH, WIDTH)

    def step() -> None:
        model(batch).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    return {"model": model, "optimizer": optimizer, "step": step, "inputs": batch}


def changed(change: Callable[[int, nn.Module], None]) -> Made:
    model, optimizer, plain = make_step()
    taken = iter(range(100))

    def step() -> None:
        plain()
        change(next(taken), model)

    return model, optimizer, step


def reads_a_value() -> Made:
    """A step that needs real data."""
    return changed(lambda number, model: print(next(model.parameters()).sum().item()))


def fails_when_traced() -> Made:
    """The second step fails, the first being the warm-up."""

    def fail(number: int, model: nn.Module) -> None:
        if number == 1:
            raise ArithmeticError("the second step fails")

    return changed(fail)


def inverts() -> Made:
    """A step with an op that has no FLOP formula."""

    def invert(number: int, model: nn.Module) -> None:
        torch.linalg.inv(torch.eye(3))

    return changed(invert)


def compiled() -> Made:
    """A model that torch.compile has wrapped."""
    model, optimizer, step = make_step()
    return torch.compile(model), optimizer, step  # type: ignore[return-value]


def nothing() -> int:
    """No training at all."""
    return 3


def without_step() -> dict[str, Any]:
    """Half a training."""
    return {"model": nn.Linear(2, 2), "optimizer": None}


def misspelt() -> dict[str, Any]:
    """A key that is none."""
    return {**as_dict(), "optimiser": None}


def no_module() -> Made:
    """A function in the model's place."""
    _, optimizer, step = make_step()
    return (lambda x: x), optimizer, step  # type: ignore[return-value]


def needs_more(device: str, batch_size: int) -> Made:
    """Takes what nobody gives."""
    return make_step(device)


def raises() -> Made:
    """Fails while it makes."""
    raise OSError("the data are gone")


NOT_CALLABLE = 7
