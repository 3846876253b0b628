"""What strangers point ``dbbench profile`` at: callables that make a model, its optimizer and a step, good and bad."""

from __future__ import annotations

import copy
import weakref
from collections import Counter
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

WIDTH, HIDDEN, CLASSES, BATCH = 32, 128, 10, 16
NOT_CALLABLE = 3
OUTSIDE = torch.ones(BATCH, WIDTH)

#: What the callables note of how they were called.
calls: Counter[str] = Counter()
draws: list[float] = []
devices: list[str] = []
models: weakref.WeakSet[nn.Module] = weakref.WeakSet()


class Net(nn.Module):
    """Two maps with a GELU between them; the first half can be checkpointed."""

    def __init__(self, recompute: bool = False) -> None:
        super().__init__()
        self.recompute = recompute
        self.up, self.act, self.down = nn.Linear(WIDTH, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        def half(x: Tensor) -> Tensor:
            return self.act(self.up(x))

        return self.down(checkpoint(half, x, use_reentrant=False) if self.recompute else half(x))


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> Any:
    def step() -> None:
        calls["step"] += 1
        loss = F.cross_entropy(model(x).float(), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _parts(recompute: bool = False, dtype: torch.dtype = torch.float32) -> tuple[Any, Any, Tensor, Tensor]:
    model = Net(recompute).to(dtype)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    return model, optimizer, torch.randn(BATCH, WIDTH, dtype=dtype), torch.randint(CLASSES, (BATCH,))


def make_step() -> tuple[Any, Any, Any]:
    calls["make"] += 1
    draws.append(torch.rand(()).item())
    model, optimizer, x, y = _parts()
    models.add(model)
    return model, optimizer, _step(model, optimizer, x, y)


def plain() -> tuple[Any, Any, Any]:
    model, optimizer, x, y = _parts()
    return model, optimizer, _step(model, optimizer, x, y)


def checkpointed() -> dict[str, Any]:
    model, optimizer, x, y = _parts(recompute=True)
    return {"model": model, "optimizer": optimizer, "step": _step(model, optimizer, x, y), "inputs": [x, y]}


def half() -> tuple[Any, Any, Any]:
    model, optimizer, x, y = _parts(dtype=torch.bfloat16)
    return model, optimizer, _step(model, optimizer, x, y)


def averaged(device: str) -> SimpleNamespace:
    """Everything by attribute, and an average of the weights."""
    devices.append(device)
    with torch.device(device):
        model, optimizer, x, y = _parts()
    average = copy.deepcopy(model).requires_grad_(False)
    train = _step(model, optimizer, x, y)

    def step() -> None:
        train()
        with torch.no_grad():
            for mean, parameter in zip(average.parameters(), model.parameters(), strict=True):
                mean.lerp_(parameter, 0.1)

    return SimpleNamespace(model=model, optimizer=optimizer, step=step, inputs={"x": x, "y": y}, ema=average)


def leaking() -> tuple[Any, Any, Any]:
    model, optimizer, x, y = _parts()
    losses = []

    def step() -> None:
        loss = F.cross_entropy(model(x), y)
        loss.backward(retain_graph=True)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss)

    return model, optimizer, step


def raising(after: int = 1) -> tuple[Any, Any, Any]:
    model, optimizer, step = plain()
    taken = Counter[str]()

    def broken() -> None:
        step()
        taken["steps"] += 1
        if taken["steps"] > after:
            raise ValueError("out of patience")

    return model, optimizer, broken


def raising_in_warmup() -> tuple[Any, Any, Any]:
    return raising(after=0)


def raising_at_once() -> tuple[Any, Any, Any]:
    raise KeyError("no data")


def raising_the_second_time() -> tuple[Any, Any, Any]:
    calls["second"] += 1
    if calls["second"] > 1:
        raise RuntimeError("the port is taken")
    return plain()


def uncounted() -> tuple[Any, Any, Any]:
    model, optimizer, x, y = _parts()
    train = _step(model, optimizer, x, y)

    def step() -> None:
        train()
        torch.linalg.qr(x)

    return model, optimizer, step


def compiled() -> tuple[Any, Any, Any]:
    model, optimizer, x, y = _parts()
    model = torch.compile(model)
    return model, optimizer, _step(model, optimizer, x, y)


def asks(what: str) -> tuple[Any, Any, Any]:
    """A step that needs data, which fake tensors do not have."""
    model, optimizer, x, y = _parts()

    def step() -> None:
        loss = F.cross_entropy(model(x), y)
        if what == "number":
            print(loss.item())
        elif what == "shape":
            loss = loss + x[x > 0].sum()
        elif what == "array":
            loss.detach().numpy()
        else:
            loss = loss + model(OUTSIDE).sum()
        loss.backward()

    return model, optimizer, step


def asks_number() -> tuple[Any, Any, Any]:
    return asks("number")


def asks_shape() -> tuple[Any, Any, Any]:
    return asks("shape")


def asks_array() -> tuple[Any, Any, Any]:
    return asks("array")


def asks_outside() -> tuple[Any, Any, Any]:
    return asks("outside")


def wants_much(device: str, batch: int, width: int) -> None:
    raise AssertionError("never called")


def returns_two() -> Any:
    return plain()[:2]


def returns_nothing() -> None:
    return None


def returns_typo() -> Any:
    model, optimizer, step = plain()
    return {"model": model, "optimiser": optimizer, "step": step}


def returns_swapped() -> Any:
    model, optimizer, step = plain()
    return optimizer, model, step


def returns_a_list_of_parameters() -> Any:
    model, _, step = plain()
    return model, list(model.parameters()), step


def returns_no_function() -> Any:
    model, optimizer, _ = plain()
    return model, optimizer, model(torch.randn(BATCH, WIDTH))


def returns_a_step_with_a_batch() -> Any:
    model, optimizer, _ = plain()

    def step(batch: Tensor) -> None:
        model(batch).sum().backward()

    return model, optimizer, step


def elsewhere() -> Any:
    """A model that says it is on another device than the one that is profiled."""

    class Elsewhere(nn.Module):
        def parameters(self, recurse: bool = True) -> Any:
            return iter([SimpleNamespace(device=torch.device("cuda"))])

    return Elsewhere(), None, lambda: None
