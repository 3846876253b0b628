"""Trainings of a stranger, for ``dbbench profile``."""

from __future__ import annotations

import copy
import weakref
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

WIDTH, HIDDEN, BATCH = 32, 128, 64
Made = tuple[nn.Module, torch.optim.Optimizer, Callable[[], None]]

#: A tensor that is there before a callable runs; a test puts it here.
OUTSIDE: torch.Tensor | None = None
#: What the callables note of how they were called.
calls: Counter[str] = Counter()
seen: list[Any] = []
models: weakref.WeakSet[nn.Module] = weakref.WeakSet()


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


class Net(nn.Module):
    """Two maps with a GELU between them; the first half can be checkpointed."""

    def __init__(self, recompute: bool = False) -> None:
        super().__init__()
        self.recompute = recompute
        self.up, self.act, self.down = nn.Linear(WIDTH, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        def half(x: torch.Tensor) -> torch.Tensor:
            return self.act(self.up(x))

        return self.down(checkpoint(half, x, use_reentrant=False) if self.recompute else half(x))


def net(recompute: bool = False, dtype: torch.dtype = torch.float32) -> Made:
    """Make the two maps, cast as most code does; note the call, the model and a random number."""
    calls["make"] += 1
    seen.append(torch.rand(()))
    model = Net(recompute).to(dtype)
    models.add(model)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    x = torch.randn(BATCH, WIDTH, dtype=dtype)

    def step() -> None:
        calls["step"] += 1
        model(x).float().square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    return model, optimizer, step


def checkpointed() -> Made:
    """Runs half of its forward again."""
    return net(recompute=True)


def halved() -> Made:
    """Parameters in bf16."""
    return net(dtype=torch.bfloat16)


def recurrent() -> Made:
    """An LSTM, which keeps a list of its weights beside them, cast and with gradients when it is."""
    model = nn.LSTM(WIDTH, WIDTH, batch_first=True)
    model(torch.randn(2, 3, WIDTH))[0].sum().backward()
    model.to(torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = torch.randn(4, 8, WIDTH, dtype=torch.float64)

    def step() -> None:
        model(x)[0].sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    return model, optimizer, step


def averaged(device: str) -> SimpleNamespace:
    """Everything by attribute, with the batch and an average of the weights."""
    seen.append(device)
    model = Net().to(device)
    average = copy.deepcopy(model).requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    x = torch.randn(BATCH, WIDTH, device=device)

    def step() -> None:
        model(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            for mean, parameter in zip(average.parameters(), model.parameters(), strict=True):
                mean.lerp_(parameter, 0.1)

    return SimpleNamespace(model=model, optimizer=optimizer, step=step, inputs={"x": x}, ema=average)


def leaking() -> Made:
    """Keeps every loss, and with it every graph, in a list that only the step knows."""
    model = Net()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    losses = []

    def step() -> None:
        loss = model(torch.randn(BATCH, WIDTH)).square().mean()
        loss.backward(retain_graph=True)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss)

    return model, optimizer, step


def fails_at_once() -> Made:
    """The warm-up fails."""

    def fail(number: int, model: nn.Module) -> None:
        raise ArithmeticError("the first step fails")

    return changed(fail)


def fails_the_second_time() -> Made:
    """Can be made once."""
    calls["made once"] += 1
    if calls["made once"] > 1:
        raise OSError("the port is taken")
    return make_step()


def reads_a_shape() -> Made:
    """A step whose shapes depend on data."""
    return changed(lambda number, model: model[0].weight[model[0].weight > 0].sum())


def reads_an_array() -> Made:
    """A step that leaves torch."""
    return changed(lambda number, model: model[0].weight.detach().numpy())


def uses_the_outside() -> Made:
    """A step on a tensor that was there before."""
    model, optimizer, _ = net()
    return model, optimizer, lambda: model(OUTSIDE).sum().backward()


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
        torch.linalg.matrix_exp(torch.eye(3))

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


def two_things() -> Any:
    """A training without a step."""
    return make_step()[:2]


def swapped() -> Any:
    """The optimizer first."""
    model, optimizer, step = make_step()
    return optimizer, model, step


def parameters_for_optimizer() -> Any:
    """A list of parameters in the optimizer's place."""
    model, _, step = make_step()
    return model, list(model.parameters()), step


def loss_for_step() -> Any:
    """What a step returned in the step's place."""
    model, optimizer, _ = net()
    return model, optimizer, model(torch.randn(BATCH, WIDTH))


def step_with_a_batch() -> Any:
    """A step that wants its batch."""
    model, optimizer, _ = net()
    return model, optimizer, lambda batch: model(batch).sum()


def elsewhere() -> Any:
    """A model that is not where it is to be profiled."""

    class Elsewhere(nn.Module):
        def parameters(self, recurse: bool = True) -> Any:
            return iter([SimpleNamespace(device=torch.device("cuda"))])

    return Elsewhere(), None, lambda: None


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
