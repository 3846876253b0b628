"""Kinds whose modules are not written in plain Python, or have more to them than their parameters."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune

from benchmarks.ledger_steps.catalogue import BATCH, WIDTH, Setup, Stack, adamw, batch, kind


def _plain() -> nn.Sequential:
    return nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, 10))


def _with(model: nn.Module, call: Callable[[Tensor], Tensor] | None = None) -> Setup:
    x, y = batch()
    optimizer = adamw(model)

    def step() -> None:
        F.cross_entropy((call or model)(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()

    return Setup(step, {"model": model}, [optimizer], {"x": x, "y": y})


def _quietly(make: Callable[[], nn.Module]) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript and eager quantisation are deprecated, and used
        return make()


@kind("a scripted module", opens="after", warm_steps=3)
def scripted() -> Setup:
    return _with(_quietly(lambda: torch.jit.script(_plain())))


@kind("a traced module")
def traced() -> Setup:
    return _with(_quietly(lambda: torch.jit.trace(_plain(), torch.ones(BATCH, WIDTH))))


@kind("one scripted layer among plain ones", opens="after", warm_steps=3)
def partly_scripted() -> Setup:
    model = _plain()
    model[0] = _quietly(lambda: torch.jit.script(model[0]))
    return _with(model)


@kind("an exported program, as a module")
def exported() -> Setup:
    return _with(torch.export.export(_plain(), (torch.ones(BATCH, WIDTH),)).module())


@kind("a module traced by torch.fx", opens="after")
def fx_traced() -> Setup:
    return _with(torch.fx.symbolic_trace(_plain()))


@kind("weight norm and spectral norm, as parametrisations")
def parametrised() -> Setup:
    model = _plain()
    parametrizations.weight_norm(model[0])
    parametrizations.spectral_norm(model[2])
    return _with(model)


@kind("weight norm by hooks, the old way", opens="after")
def weight_norm_hooks() -> Setup:
    model = _plain()
    _quietly(lambda: nn.utils.weight_norm(model[0]))
    return _with(model)


@kind("a pruned layer: a mask on its weight")
def pruned() -> Setup:
    model = _plain()
    prune.l1_unstructured(model[0], "weight", 0.5)
    return _with(model)


@kind("quantisation in training: observers and rounded weights", opens="after")
def quantised_in_training() -> Setup:
    def make() -> nn.Module:
        model = _plain().train()
        model.qconfig = torch.ao.quantization.get_default_qat_qconfig("x86")  # type: ignore[assignment]
        return torch.ao.quantization.prepare_qat(model)

    return _with(_quietly(make))


@kind("a lazy module that gets its parameters in its first step")
def lazy() -> Setup:
    model = nn.Sequential(nn.LazyLinear(4 * WIDTH), nn.GELU(), nn.LazyLinear(10))
    x, y = batch()

    def step() -> None:
        F.cross_entropy(model(x), y).backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.1 * parameter.grad
        model.zero_grad()

    return Setup(step, {"model": model}, (), {"x": x, "y": y})


@kind("an average of the weights, kept by torch's AveragedModel", opens="after")
def averaged_model() -> Setup:
    model, (x, y) = Stack(), batch()
    optimizer, average = adamw(model), torch.optim.swa_utils.AveragedModel(model)

    def step() -> None:
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
        average.update_parameters(model)

    kept = {name: p.detach() for name, p in average.named_parameters()}
    return Setup(step, {"model": model}, [optimizer], {"x": x, "y": y}, ema=kept)


@kind("a prediction, without gradients", opens="after")
def prediction() -> Setup:
    model, (x, y) = Stack(), batch()

    def step() -> None:
        with torch.no_grad():
            model(x).argmax(-1)

    return Setup(step, {"model": model}, (), {"x": x, "y": y})


@kind("a prediction under inference_mode, whose composite ops nobody takes apart")
def prediction_inference_mode() -> Setup:
    model, (x, y) = Stack(), batch()

    def step() -> None:
        with torch.inference_mode():
            model(x).softmax(-1).argmax(-1)

    return Setup(step, {"model": model}, (), {"x": x, "y": y})


@kind("a prediction of a quantised module", opens="after")
def prediction_quantised() -> Setup:
    model, (x, y) = _quietly(lambda: torch.ao.quantization.quantize_dynamic(_plain(), {nn.Linear})), batch()

    def step() -> None:
        with torch.no_grad():
            model(x)

    return Setup(step, {"model": model}, (), {"x": x, "y": y}, result=lambda: [x])


@kind("a transformer's fast path in evaluation")
def prediction_fast_path() -> Setup:
    layer = nn.TransformerEncoderLayer(WIDTH, 4, 2 * WIDTH, batch_first=True).eval()
    x = torch.randn(BATCH, 6, WIDTH)

    def step() -> None:
        with torch.no_grad():
            layer(x)

    return Setup(step, {"model": layer}, (), {"x": x})
