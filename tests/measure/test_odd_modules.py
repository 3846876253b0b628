"""Modules that are not written in plain Python: measured as the plain one, or refused in one line."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from dbbench import Ledger
from dbbench.errors import BadInput
from dbbench.measure.account import Account

WIDTH, HIDDEN, BATCH, FLOAT = 64, 256, 32, 4


def batch() -> Tensor:
    return torch.ones(BATCH, WIDTH)  # no global of the module: a ledger would find it in every other test


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, WIDTH))


class Moody(nn.Module):
    """Has properties that raise when somebody looks."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = net()

    @property
    def device(self) -> torch.device:
        raise RuntimeError("not now")

    @property
    def parts(self) -> list[nn.Module]:
        raise KeyError("parts")

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


def partly_scripted() -> nn.Module:
    model = net()
    model[0] = torch.jit.script(model[0])
    return model


def account_of(model: nn.Module, warm: int = 3) -> Account:
    optimizer = torch.optim.AdamW(model.parameters(), fused=True) if warm else None
    x = batch()

    def step() -> None:
        model(x).square().mean().backward()
        if optimizer is not None:
            optimizer.step()
        model.zero_grad()

    for _ in range(warm):  # TorchScript differentiates a graph once it has seen it run
        step()
    with Ledger(model, optimizer, inputs=x) as ledger:
        step()
    return ledger.account()


SAME: dict[str, Callable[[], nn.Module]] = {
    "scripted": lambda: torch.jit.script(net()),
    "traced": lambda: torch.jit.trace(net(), batch()),
    "partly scripted": partly_scripted,
    "exported": lambda: torch.export.export(net(), (batch(),)).module(),
    "fx": lambda: torch.fx.symbolic_trace(net()),
    "moody": Moody,
    "copied": lambda: copy.deepcopy(net()),
}


@pytest.mark.parametrize("name", SAME)
def test_another_form_of_a_module_costs_what_the_module_costs(name: str) -> None:
    """A scripted one ended in a TypeError; what TorchScript keeps for a backward was called retained."""
    plain, other = account_of(net()), account_of(SAME[name]())
    if name != "scripted":  # its backward makes all gradients before it hands any on
        assert other.peak_bytes == plain.peak_bytes
    for role in ("parameters", "gradients", "optimizer", "activations"):
        assert other.own_peaks[role] == plain.own_peaks[role], role
    assert other.own_peaks["retained"] - plain.own_peaks["retained"] < 1024  # other tests' variables are in both
    assert other.own_peaks["unseen"] == 0


def normed() -> nn.Module:
    model = net()
    parametrizations.weight_norm(model[0])
    parametrizations.spectral_norm(model[2])
    return model


def pruned() -> nn.Module:
    model = net()
    prune.l1_unstructured(model[0], "weight", 0.5)
    return model


def for_quantisation() -> nn.Module:
    model = net().train()
    model.qconfig = torch.ao.quantization.get_default_qat_qconfig("x86")  # type: ignore[assignment]
    return torch.ao.quantization.prepare_qat(model)


@pytest.mark.parametrize("make", [normed, pruned, for_quantisation, lambda: torch.optim.swa_utils.AveragedModel(net())])
def test_modules_with_more_to_them_are_measured(make: Callable[[], nn.Module]) -> None:
    account = account_of(make())
    assert sum(account.split.values()) == account.peak_bytes
    assert account.own_peaks["gradients"] >= (2 * WIDTH * HIDDEN) * FLOAT
    assert account.own_peaks["unseen"] == 0


def test_a_lazy_module_gets_its_parameters_in_the_step() -> None:
    model = nn.Sequential(nn.LazyLinear(HIDDEN), nn.GELU(), nn.LazyLinear(WIDTH))
    account = account_of(model, warm=0)
    assert account.own_peaks["parameters"] == sum(p.nbytes for p in model.parameters())
    assert account.own_peaks["activations"] >= 2 * BATCH * HIDDEN * FLOAT


def test_a_quantised_module_counts_and_its_ops_are_named() -> None:
    model = torch.ao.quantization.quantize_dynamic(net(), {nn.Linear})
    x = batch()
    with Ledger(model, inputs=x) as ledger, torch.inference_mode():
        model(x)
    assert ledger.account().own_peaks["temporaries"] >= BATCH * HIDDEN * FLOAT
    assert ledger.uncounted["quantized.linear_dynamic"] == 2


@pytest.mark.parametrize("make", [lambda: torch.compile(net()), lambda: net().to("meta")])
def test_what_cannot_be_measured_is_refused_in_one_line(make: Callable[[], nn.Module]) -> None:
    with pytest.raises(BadInput) as refused, Ledger(make()):
        pass
    assert "\n" not in str(refused.value)
