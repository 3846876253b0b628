"""Training steps that keep what they should let go of, each in one way: what every idiom of a leak test is tried on.

A step is called as often as a test likes, and whatever it keeps is in ``KEPT``, or hangs on the model. `fresh` makes
all anew.
"""

from __future__ import annotations

import copy
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

ROWS, WIDTH = 64, 32
KEPT: list[Any] = []
Step = Callable[[], None]
Make = Callable[[nn.Module, torch.optim.Optimizer, Tensor], Step]
LEAKS: dict[str, Make] = {}


def leak(make: Make) -> Make:
    """Register a leak; the docstring says what it keeps."""
    LEAKS[make.__name__] = make
    return make


def fresh(name: str = "") -> tuple[nn.Module, torch.optim.Optimizer, Tensor, Step]:
    """Return (model, optimizer, batch, step) of the leak ``name``, or of a step that keeps nothing."""
    KEPT.clear()
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, 1))
    optimizer, x = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9), torch.ones(ROWS, WIDTH)
    return model, optimizer, x, LEAKS[name](model, optimizer, x) if name else _step(model, optimizer, x)


def _step(
    model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, seen: Callable[[Tensor, Tensor], Any] | None = None
) -> Step:
    """Return a plain step; ``seen`` gets the output and the loss once the update is done."""

    def step() -> None:
        output = model(x)
        loss = output.square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if seen is not None:
            seen(output, loss)

    return step


@leak
def losses_with_their_graphs(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor) -> Step:
    """A list of losses that were never backpropagated, for a plot."""
    return _step(model, optimizer, x, lambda output, loss: KEPT.append(model(x).square().mean()))


@leak
def a_running_loss(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor) -> Step:
    """A sum of losses without ``.item()``: a chain that grows."""
    KEPT.append(torch.zeros(()))

    def seen(output: Tensor, loss: Tensor) -> None:
        KEPT[0] = KEPT[0] + model(x).square().mean()

    return _step(model, optimizer, x, seen)


@leak
def a_retained_graph(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor) -> Step:
    """``backward(retain_graph=True)`` on a loss that is kept."""

    def step() -> None:
        loss = model(x).square().mean()
        loss.backward(retain_graph=True)
        optimizer.step()
        optimizer.zero_grad()
        KEPT.append(loss)

    return step


@leak
def outputs(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor) -> Step:
    """Predictions, detached, for a later evaluation."""
    return _step(model, optimizer, x, lambda output, loss: KEPT.append(output.detach()))


@leak
def arrays(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor) -> Step:
    """NumPy arrays that share the predictions' memory."""
    return _step(model, optimizer, x, lambda output, loss: KEPT.append(output.detach().numpy()))


@leak
def what_a_hook_sees(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor) -> Step:
    """A forward hook that keeps what a layer returns."""
    model[1].register_forward_hook(lambda module, given, output: KEPT.append(output))  # type: ignore[index]
    return _step(model, optimizer, x)


@leak
def gradients_for_a_log(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor) -> Step:
    """Copies of the gradients of every step."""

    def step() -> None:
        model(x).square().mean().backward()
        KEPT.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
        optimizer.step()
        optimizer.zero_grad()

    return step


@leak
def batches(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor) -> Step:
    """Every batch on the device."""

    def step() -> None:
        KEPT.append(x * 1.0)
        model(KEPT[-1]).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


@leak
def checkpoints_of_weights(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor) -> Step:
    """A copy of the weights after every step."""
    return _step(model, optimizer, x, lambda output, loss: KEPT.append(copy.deepcopy(model.state_dict())))


@leak
def an_exceptions_frames(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor) -> Step:
    """An exception that was caught and kept, with the variables of its frames."""

    def fail(hidden: Tensor) -> None:
        activations = hidden.tanh()
        raise ValueError(f"no such case: {len(activations)}")

    def seen(output: Tensor, loss: Tensor) -> None:
        try:
            fail(model[0](x))  # type: ignore[index]
        except ValueError as error:
            KEPT.append(error)

    return _step(model, optimizer, x, seen)


@leak
def a_cached_function(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor) -> Step:
    """``functools.lru_cache`` on a function of a tensor."""

    @functools.cache
    def features(of: Tensor) -> Tensor:
        return of.tanh()

    KEPT.append(features)
    return _step(model, optimizer, x, lambda output, loss: features(output.detach()))


@leak
def a_dictionary_by_step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor) -> Step:
    """A cache that is never emptied, on the model."""
    model.cache = {}  # type: ignore[assignment]
    return _step(model, optimizer, x, lambda output, loss: model.cache.update({len(model.cache): output.tanh()}))  # type: ignore[union-attr,operator,arg-type]


@leak
def buffers(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor) -> Step:
    """A buffer more on the model at every step."""
    return _step(
        model,
        optimizer,
        x,
        lambda output, loss: model.register_buffer(f"seen{len(list(model.buffers()))}", output.detach()),
    )


@leak
def optimizers(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor) -> Step:
    """An optimizer made anew at every step, the old ones kept with their state."""

    def step() -> None:
        KEPT.append(torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9))
        model(x).square().mean().backward()
        KEPT[-1].step()
        KEPT[-1].zero_grad()

    return step


@leak
def a_suspended_generator(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor) -> Step:
    """A generator that was not run to its end, with its variables."""

    def passes() -> Iterator[int]:
        hidden = model(x).tanh()
        yield len(hidden)

    def seen(output: Tensor, loss: Tensor) -> None:
        KEPT.append(passes())
        next(KEPT[-1])

    return _step(model, optimizer, x, seen)


@leak
def a_tensors_hook(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor) -> Step:
    """Hooks on a parameter, each with the outputs that it closes over."""
    parameter = next(model.parameters())

    def seen(output: Tensor, loss: Tensor) -> None:
        kept = output.detach()
        parameter.register_hook(lambda gradient: None if kept is None else gradient)

    return _step(model, optimizer, x, seen)


@leak
def a_threads_locals(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor) -> Step:
    """A list on a ``threading.local``."""
    local = threading.local()
    local.kept = []
    KEPT.append(local)
    return _step(model, optimizer, x, lambda output, loss: local.kept.append(output.detach()))


@leak
def a_default_argument(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor) -> Step:
    """A list that is a parameter's default."""

    def remember(output: Tensor, loss: Tensor, kept: list[Tensor] = []) -> None:  # noqa: B006 (the leak)
        kept.append(output.detach())

    return _step(model, optimizer, x, remember)


@leak
def a_views_base(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor) -> Step:
    """One row of each output, which keeps the whole alive."""
    return _step(model, optimizer, x, lambda output, loss: KEPT.append(model[0](x).detach()[0]))  # type: ignore[index]


@leak
def a_functions_context(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor) -> Step:
    """A custom function whose ``ctx`` has a tensor as an attribute, behind a loss that is kept."""

    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, of: Tensor) -> Tensor:
            ctx.given = of.tanh()
            return of * of

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            return grad * ctx.given

    return _step(model, optimizer, x, lambda output, loss: KEPT.append(Square.apply(model(x)).sum()))


@leak
def a_cycle(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor) -> Step:
    """An object that refers to itself and is kept in a list as well."""

    class Seen:
        def __init__(self, output: Tensor) -> None:
            self.itself, self.output = self, output

    return _step(model, optimizer, x, lambda output, loss: KEPT.append(Seen(output.detach())))


@leak
def averages(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor) -> Step:
    """A moving average of the weights, made anew at each step while the old ones stay."""
    return _step(model, optimizer, x, lambda output, loss: KEPT.append(copy.deepcopy(model).requires_grad_(False)))
