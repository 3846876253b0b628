"""Optimizers inside others: their state is the optimizer's, wherever it hangs, and counts once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dbbench import Ledger
from dbbench.profile.target import training_of

WIDTH, BATCH, FLOAT = 32, 8, 4
STATE = 2 * (WIDTH * WIDTH + WIDTH) * FLOAT
#: AdamW counts its steps in a number of its own for each parameter.
STEPS = 2 * FLOAT


class Wrapper:
    """Passes on what a training loop calls; the optimizer that does the work is under ``name``."""

    def __init__(self, optimizer: torch.optim.Optimizer, name: str, put: Callable[[Any], Any] = lambda o: o) -> None:
        self.inner_optimizer = None
        setattr(self, name, put(optimizer))
        self._step, self._zero = optimizer.step, optimizer.zero_grad

    def step(self) -> None:
        self._step()

    def zero_grad(self) -> None:
        self._zero()


class MasterCopies:
    """Keeps its parameters in double precision, as mixed precision's wrappers keep them in full."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self.model_parameters = parameters
        self.masters = [nn.Parameter(p.detach().double()) for p in parameters]
        self.optim = torch.optim.AdamW(self.masters)

    def step(self) -> None:
        for master, parameter in zip(self.masters, self.model_parameters, strict=True):
            assert parameter.grad is not None
            master.grad = parameter.grad.double()
        self.optim.step()
        with torch.no_grad():
            for master, parameter in zip(self.masters, self.model_parameters, strict=True):
                parameter.copy_(master)
                master.grad = None

    def zero_grad(self) -> None:
        for parameter in self.model_parameters:
            parameter.grad = None


class SAM(torch.optim.Optimizer):
    """Sharpness-aware minimisation (Foret et al. 2021): climbs, keeps where it was, and steps from there."""

    def __init__(self, parameters: Any) -> None:
        self.base_optimizer: torch.optim.Optimizer | None = None
        super().__init__(parameters, {"rho": 0.05})
        self.base_optimizer = torch.optim.AdamW(self.param_groups)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p]["old"] = p.clone()
        assert self.base_optimizer is not None
        self.base_optimizer.step()


pytestmark = pytest.mark.usefixtures("group_of_one_process")


def adamw(parameters: Any) -> torch.optim.AdamW:
    return torch.optim.AdamW(parameters)


def zero(parameters: Any) -> torch.optim.Optimizer:
    from torch.distributed.optim import ZeroRedundancyOptimizer

    return ZeroRedundancyOptimizer(parameters, torch.optim.AdamW)


MAKERS: dict[str, tuple[Callable[[list[nn.Parameter]], Any], int]] = {
    "zero": (zero, STATE + STEPS),
    "optimizer": (lambda p: Wrapper(adamw(p), "optimizer"), STATE + STEPS),
    "_inner": (lambda p: Wrapper(adamw(p), "_inner"), STATE + STEPS),
    "list": (lambda p: Wrapper(adamw(p), "chained", lambda o: [o]), STATE + STEPS),
    "dict": (lambda p: Wrapper(adamw(p), "by_name", lambda o: {"all": {"here": o}}), STATE + STEPS),
    "twice": (lambda p: Wrapper(Wrapper(adamw(p), "optim"), "outer"), STATE + STEPS),  # type: ignore[arg-type]
    "masters": (MasterCopies, 2 * STATE + 2 * STATE // 2 + STEPS),
    # a copy of one parameter is made before the old one goes
    "sam": (SAM, STATE + STEPS + STATE // 2 + WIDTH * WIDTH * FLOAT),
}


@pytest.mark.parametrize("opened", ["before", "after"])
@pytest.mark.parametrize("name", MAKERS)
def test_the_state_of_a_wrapped_optimizer_counts_once(name: str, opened: str, left_by_others_bytes: int) -> None:
    """ZeRO's was called retained: 49,676 of 115,732 bytes of a step."""
    make, expected = MAKERS[name]
    model = nn.Linear(WIDTH, WIDTH)
    optimizer = make(list(model.parameters()))
    x = torch.randn(BATCH, WIDTH)

    def step() -> None:
        model(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    if opened == "after" or name == "sam":
        step()
    with Ledger(model, optimizer, inputs=x) as ledger:
        step()
    account = ledger.account()
    assert account.own_peaks["optimizer"] == expected
    assert account.own_peaks["parameters"] == STATE // 2
    assert account.own_peaks["retained"] - left_by_others_bytes < STATE // 4
    assert account.own_peaks["unseen"] == 0


def test_lbfgs_keeps_its_history_as_state() -> None:
    model = nn.Linear(WIDTH, WIDTH)
    optimizer = torch.optim.LBFGS(model.parameters(), history_size=3, max_iter=4)
    x = torch.randn(BATCH, WIDTH)

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = model(x).square().mean()
        value.backward()
        return value

    optimizer.step(loss)
    with Ledger(model, optimizer, inputs=x) as ledger:
        optimizer.step(loss)
    # three pairs of directions and steps, the last direction and the last gradient
    assert ledger.account().own_peaks["optimizer"] >= 8 * STATE // 2


def test_a_target_may_return_a_wrapper_and_not_just_anything() -> None:
    model = nn.Linear(2, 2)
    wrapped = Wrapper(adamw(model.parameters()), "optim")
    assert training_of((model, wrapped, lambda: None), "here").optimizer is wrapped
    with pytest.raises(Exception, match="its optimizer is an object, not a torch optimizer, nor wraps one"):
        training_of((model, object(), lambda: None), "here")
