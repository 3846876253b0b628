"""Kinds that use autograd in other ways: second derivatives, functions of one's own, hooks, torch.func."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks
from torch.nn import functional as F

from benchmarks.ledger_steps.catalogue import WIDTH, Block, Setup, Stack, adamw, batch, kind


@kind("gradient penalty: a backward with create_graph, then one through it")
def gradient_penalty() -> Setup:
    critic, (x, _) = nn.Sequential(Block(), nn.Linear(WIDTH, 1)), batch()
    optimizer = adamw(critic)

    def step() -> None:
        point = x.detach().requires_grad_(True)
        score = critic(point).sum()
        (slope,) = torch.autograd.grad(score, point, create_graph=True)
        penalty = (slope.square().sum(1).sqrt() - 1).square().mean()
        (score.mean() + 10.0 * penalty).backward()
        optimizer.step()
        optimizer.zero_grad()

    return Setup(step, {"critic": critic}, [optimizer], {"x": x})


@kind("double backward with gradients as leaves of a second loss (meta-learning)", opens="after")
def double_backward() -> Setup:
    model, (x, y) = Stack(2), batch()
    optimizer = adamw(model)

    def step() -> None:
        inner = F.cross_entropy(model(x[:8]), y[:8])
        parameters = dict(model.named_parameters())
        slopes = torch.autograd.grad(inner, list(parameters.values()), create_graph=True)
        moved = {name: p - 0.1 * g for (name, p), g in zip(parameters.items(), slopes, strict=True)}
        F.cross_entropy(torch.func.functional_call(model, moved, (x[8:],)), y[8:]).backward()
        optimizer.step()
        optimizer.zero_grad()

    return Setup(step, {"model": model}, [optimizer], {"x": x, "y": y})


class _Swish(torch.autograd.Function):
    """``x · sigmoid(x)``; saves its input the proper way and keeps the gate as a bare attribute of ``ctx``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        gate = torch.sigmoid(x)
        ctx.save_for_backward(x)
        ctx.gate = gate
        return x * gate

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradients[0] * ctx.gate * (1 + x * (1 - ctx.gate))


class _Custom(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(_Swish.apply(self.up(x)))


def _plain(model: nn.Module, x: Tensor, y: Tensor) -> Setup:
    optimizer = adamw(model)

    def step() -> None:
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()

    return Setup(step, {"model": model}, [optimizer], {"x": x, "y": y})


@kind("autograd.Function that saves a tensor and keeps another on ctx")
def custom_function() -> Setup:
    return _plain(_Custom(), *batch())


@kind("torch.func: gradients of functional_call, applied by hand")
def func_grad() -> Setup:
    model, (x, y) = Stack(2), batch()

    def loss(parameters: dict[str, Tensor]) -> Tensor:
        return F.cross_entropy(torch.func.functional_call(model, parameters, (x,)), y)

    def step() -> None:
        parameters = {name: p.detach() for name, p in model.named_parameters()}
        slopes = torch.func.grad(loss)(parameters)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.sub_(slopes[name], alpha=0.1)

    return Setup(step, {"model": model}, (), {"x": x, "y": y})


@kind("torch.func.vmap over grad: a gradient for each sample", opens="after")
def per_sample_gradients() -> Setup:
    model, (x, y) = Stack(1), batch()

    def loss(parameters: dict[str, Tensor], sample: Tensor, label: Tensor) -> Tensor:
        logits = torch.func.functional_call(model, parameters, (sample[None],))
        return F.cross_entropy(logits, label[None])

    def step() -> None:
        parameters = {name: p.detach() for name, p in model.named_parameters()}
        each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(parameters, x, y)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.sub_(each[name].clamp(-1, 1).mean(0), alpha=0.1)

    return Setup(step, {"model": model}, (), {"x": x, "y": y})


@kind("forward-mode derivative beside the backward")
def forward_mode() -> Setup:
    model, (x, y) = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.Tanh(), nn.Linear(4 * WIDTH, 10)), batch()
    optimizer = adamw(model)

    def step() -> None:
        with forward_ad.dual_level():
            logits, tangent = forward_ad.unpack_dual(model(forward_ad.make_dual(x, torch.ones_like(x))))
            assert tangent is not None
            (F.cross_entropy(logits, y) + tangent.square().mean()).backward()
        optimizer.step()
        optimizer.zero_grad()

    return Setup(step, {"model": model}, [optimizer], {"x": x, "y": y})


@kind("the user's own saved-tensor hooks: kept in half precision")
def packed_in_half() -> Setup:
    model, (x, y) = Stack(), batch()
    optimizer = adamw(model)

    def pack(tensor: Tensor) -> Tensor:
        return tensor.to(torch.bfloat16) if tensor.dtype is torch.float32 else tensor

    def unpack(kept: Tensor) -> Tensor:
        return kept.to(torch.float32) if kept.dtype is torch.bfloat16 else kept

    def step() -> None:
        with saved_tensors_hooks(pack, unpack):
            loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return Setup(step, {"model": model}, [optimizer], {"x": x, "y": y})


@kind("the user's own saved-tensor hooks: kept outside torch, in numpy's memory", opens="after")
def packed_in_numpy() -> Setup:
    model, (x, y) = Stack(), batch()
    optimizer = adamw(model)

    def pack(tensor: Tensor) -> Any:
        return tensor.detach().numpy().copy()

    def step() -> None:
        with saved_tensors_hooks(pack, torch.from_numpy):
            loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return Setup(step, {"model": model}, [optimizer], {"x": x, "y": y})


@kind("save_on_cpu: every saved tensor copied")
def saved_on_cpu() -> Setup:
    model, (x, y) = Stack(), batch()
    optimizer = adamw(model)

    def step() -> None:
        with save_on_cpu():
            loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return Setup(step, {"model": model}, [optimizer], {"x": x, "y": y})


@kind("hooks that keep outputs and hooks that change gradients")
def module_hooks() -> Setup:
    model, (x, y) = Stack(), batch()
    x.requires_grad_(True)
    optimizer = adamw(model)
    outputs: list[Tensor] = []

    def halve(_layer: nn.Module, slopes: Any, _outer: Any) -> Any:
        return tuple(None if slope is None else slope * 0.5 for slope in slopes)

    for layer in model.layers:
        layer.register_forward_hook(lambda _m, _i, output: outputs.append(output))
        layer.register_full_backward_hook(halve)

    def step() -> None:
        outputs.clear()
        logits = model(x)
        outputs[-1].register_hook(lambda slope: slope.clamp(-1, 1))
        (F.cross_entropy(logits, y) + torch.stack(outputs).square().mean()).backward()
        optimizer.step()
        optimizer.zero_grad()

    return Setup(step, {"model": model}, [optimizer], {"x": x, "y": y})
