"""Kinds in low precision: autocast, a model in bf16, master weights."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from benchmarks.ledger_steps.catalogue import Setup, Stack, adamw, batch, kind


@kind("autocast to bf16: casts of the weights are kept")
def autocast_bf16() -> Setup:
    model, (x, y) = Stack(), batch()
    optimizer = adamw(model)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return Setup(step, {"model": model}, [optimizer], {"x": x, "y": y})


@kind("autocast around accumulation, the ledger opened late", opens="after")
def autocast_accumulation() -> Setup:
    model, (x, y) = Stack(), batch()
    optimizer = adamw(model)

    def step() -> None:
        for half in (slice(0, 8), slice(8, 16)):
            with torch.autocast("cpu", torch.bfloat16):
                loss = F.cross_entropy(model(x[half]), y[half])
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return Setup(step, {"model": model}, [optimizer], {"x": x, "y": y})


@kind("parameters, activations and state in bf16")
def bf16_model() -> Setup:
    model, (x, y) = Stack().bfloat16(), batch()
    x = x.bfloat16()
    optimizer = adamw(model)

    def step() -> None:
        F.cross_entropy(model(x).float(), y).backward()
        optimizer.step()
        optimizer.zero_grad()

    return Setup(step, {"model": model}, [optimizer], {"x": x, "y": y})


@kind("bf16 model with fp32 master weights and gradients cast to them", opens="after")
def master_weights() -> Setup:
    model, (x, y) = Stack().bfloat16(), batch()
    x = x.bfloat16()
    masters = [p.detach().float().requires_grad_(True) for p in model.parameters()]
    optimizer = torch.optim.AdamW(masters, lr=1e-3, fused=True)

    def step() -> None:
        F.cross_entropy(model(x).float(), y).backward()
        for master, parameter in zip(masters, model.parameters(), strict=True):
            assert parameter.grad is not None
            master.grad = parameter.grad.float()
            parameter.grad = None
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            for master, parameter in zip(masters, model.parameters(), strict=True):
                parameter.copy_(master)

    def others() -> list[tuple[str, str, torch.Tensor]]:
        return [
            ("optimizer", f"{name}.master", m) for (name, _), m in zip(model.named_parameters(), masters, strict=True)
        ]

    return Setup(step, {"model": model}, [optimizer], {"x": x, "y": y}, others=others)
