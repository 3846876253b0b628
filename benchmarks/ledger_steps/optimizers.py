"""Kinds that differ in their optimizer, in how it is implemented, and in what becomes of the gradients."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.ledger_steps.catalogue import BATCH, LENGTH, WIDTH, Setup, Stack, adamw, batch, kind
from dbbench.phases import phase

Make = Callable[[nn.Module], torch.optim.Optimizer]


def _with(make: Make, *, set_to_none: bool = True) -> Setup:
    model, (x, y) = Stack(), batch()
    optimizer = make(model)

    def step() -> None:
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=set_to_none)

    return Setup(step, {"model": model}, [optimizer], {"x": x, "y": y})


@kind("AdamW, fused, gradients zeroed in place")
def adamw_fused_zeroed() -> Setup:
    return _with(adamw, set_to_none=False)


@kind("AdamW, foreach: temporaries as large as all parameters")
def adamw_foreach() -> Setup:
    return _with(lambda m: torch.optim.AdamW(m.parameters(), lr=1e-3, foreach=True))


@kind("AdamW, foreach, gradients zeroed in place", opens="after")
def adamw_foreach_zeroed() -> Setup:
    return _with(lambda m: torch.optim.AdamW(m.parameters(), lr=1e-3, foreach=True), set_to_none=False)


@kind("AdamW, one parameter at a time, with amsgrad")
def adamw_loop() -> Setup:
    return _with(lambda m: torch.optim.AdamW(m.parameters(), lr=1e-3, foreach=False, amsgrad=True))


@kind("SGD with momentum")
def sgd_momentum() -> Setup:
    return _with(lambda m: torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9))


@kind("SGD with Nesterov momentum, foreach", opens="after")
def sgd_nesterov_foreach() -> Setup:
    return _with(lambda m: torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9, nesterov=True, foreach=True))


@kind("Adagrad")
def adagrad() -> Setup:
    return _with(lambda m: torch.optim.Adagrad(m.parameters(), lr=0.1))


@kind("RMSprop, centred, with momentum", opens="after")
def rmsprop() -> Setup:
    return _with(lambda m: torch.optim.RMSprop(m.parameters(), lr=1e-3, momentum=0.9, centered=True))


@kind("Muon on the matrices, AdamW on the rest")
def muon() -> Setup:
    model, (x, y) = Stack(), batch()
    matrices = [p for p in model.parameters() if p.ndim == 2]
    rest = [p for p in model.parameters() if p.ndim != 2]
    optimizers = [torch.optim.Muon(matrices, lr=1e-3), torch.optim.AdamW(rest, lr=1e-3, fused=True)]

    def step() -> None:
        F.cross_entropy(model(x), y).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

    return Setup(step, {"model": model}, optimizers, {"x": x, "y": y})


@kind("L-BFGS: the optimizer runs forward and backward itself")
def lbfgs() -> Setup:
    model, (x, y) = Stack(1), batch()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3, history_size=2)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        return loss

    return Setup(lambda: optimizer.step(closure), {"model": model}, [optimizer], {"x": x, "y": y})


@kind("sparse gradients of an embedding, SparseAdam")
def sparse_embedding() -> Setup:
    table, head = nn.Embedding(200, WIDTH, sparse=True), nn.Linear(WIDTH, 10)
    tokens, labels = torch.randint(0, 200, (BATCH, LENGTH)), torch.randint(0, 10, (BATCH,))
    optimizers = [torch.optim.SparseAdam(list(table.parameters()), lr=1e-2), adamw(head)]

    def step() -> None:
        F.cross_entropy(head(table(tokens).mean(1)), labels).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

    return Setup(step, {"table": table, "head": head}, optimizers, {"tokens": tokens, "labels": labels})


@kind("sparse gradients, plain SGD, the ledger opened late", opens="after")
def sparse_embedding_bag() -> Setup:
    table, head = nn.EmbeddingBag(200, WIDTH, sparse=True, mode="sum"), nn.Linear(WIDTH, 10)
    tokens, labels = torch.randint(0, 200, (BATCH, LENGTH)), torch.randint(0, 10, (BATCH,))
    optimizer = torch.optim.SGD([*table.parameters(), *head.parameters()], lr=1e-2)

    def step() -> None:
        F.cross_entropy(head(table(tokens)), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    return Setup(step, {"table": table, "head": head}, [optimizer], {"tokens": tokens, "labels": labels})


@kind("an optimizer written by hand, marked with phase('optimizer')")
def hand_written_optimizer() -> Setup:
    model, (x, y) = Stack(), batch()
    momenta = {name: torch.zeros_like(p) for name, p in model.named_parameters()}

    def step() -> None:
        F.cross_entropy(model(x), y).backward()
        with phase("optimizer"), torch.no_grad():
            for name, parameter in model.named_parameters():
                assert parameter.grad is not None
                momentum = momenta[name].mul_(0.9).add_(parameter.grad)
                parameter.sub_(0.1 * momentum / (1e-3 + momentum.abs().mean()))
                parameter.grad = None

    def others() -> list[tuple[str, str, Tensor]]:
        return [("optimizer", f"{name}.momentum", momentum) for name, momentum in momenta.items()]

    return Setup(step, {"model": model}, (), {"x": x, "y": y}, others=others)


@kind("update inside the backward: one optimizer a parameter, in its gradient hook")
def update_in_backward() -> Setup:
    model, (x, y) = Stack(), batch()
    optimizers = {p: torch.optim.AdamW([p], lr=1e-3, fused=True) for p in model.parameters()}

    def update(parameter: Tensor) -> None:
        optimizers[parameter].step()  # type: ignore[index]
        optimizers[parameter].zero_grad()  # type: ignore[index]

    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(update)

    def step() -> None:
        F.cross_entropy(model(x), y).backward()

    return Setup(step, {"model": model}, list(optimizers.values()), {"x": x, "y": y})


def _clipped(foreach: bool) -> Setup:
    model, (x, y) = Stack(), batch()
    optimizer = adamw(model)

    def step() -> None:
        F.cross_entropy(model(x), y).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.1, foreach=foreach)
        optimizer.step()
        optimizer.zero_grad()

    return Setup(step, {"model": model}, [optimizer], {"x": x, "y": y})


@kind("gradient clipping, foreach")
def clip_foreach() -> Setup:
    return _clipped(foreach=True)


@kind("gradient clipping, one parameter at a time", opens="after")
def clip_loop() -> Setup:
    return _clipped(foreach=False)
