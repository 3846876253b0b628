"""Kinds that differ in their loop: what is trained when, by which loss, and what is kept beside it."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.ledger_steps.catalogue import WIDTH, Block, Setup, Stack, adamw, batch, kind


@kind("two optimizers, the second on every layer's norm")
def several_optimizers() -> Setup:
    model, (x, y) = Stack(), batch()
    norms = [p for name, p in model.named_parameters() if ".norm." in name]
    rest = [p for name, p in model.named_parameters() if ".norm." not in name]
    optimizers = [torch.optim.AdamW(rest, fused=True), torch.optim.SGD(norms, lr=0.1, momentum=0.9)]

    def step() -> None:
        F.cross_entropy(model(x), y).backward()
        for optimizer in optimizers:
            optimizer.step()
        for optimizer in optimizers:
            optimizer.zero_grad()

    return Setup(step, {"model": model}, optimizers, {"x": x, "y": y})


@kind("gradient accumulation over four micro-batches")
def accumulation() -> Setup:
    model, (x, y) = Stack(), batch(64)
    optimizer = adamw(model)

    def step() -> None:
        for micro_x, micro_y in zip(x.split(16), y.split(16), strict=True):
            (F.cross_entropy(model(micro_x), micro_y) / 4).backward()
        optimizer.step()
        optimizer.zero_grad()

    return Setup(step, {"model": model}, [optimizer], {"x": x, "y": y})


@kind("greedy blocks: a detached local loss each")
def local_losses() -> Setup:
    blocks, heads = nn.ModuleList(Block() for _ in range(3)), nn.ModuleList(nn.Linear(WIDTH, 10) for _ in range(3))
    x, y = batch()
    optimizers = [adamw(nn.ModuleList(pair)) for pair in zip(blocks, heads, strict=True)]

    def step() -> None:
        hidden = x
        for block, head, optimizer in zip(blocks, heads, optimizers, strict=True):
            hidden = block(hidden.detach())
            F.cross_entropy(head(hidden), y).backward()
            optimizer.step()
            optimizer.zero_grad()

    return Setup(step, {"blocks": blocks, "heads": heads}, optimizers, {"x": x, "y": y})


@kind("the first stages frozen", opens="after")
def frozen_stages() -> Setup:
    model, (x, y) = Stack(), batch()
    model.layers[:2].requires_grad_(False)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], fused=True)

    def step() -> None:
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()

    return Setup(step, {"model": model}, [optimizer], {"x": x, "y": y})


@kind("an EMA copy of the weights beside the model")
def ema_copy() -> Setup:
    model, (x, y) = Stack(), batch()
    average = copy.deepcopy(model).requires_grad_(False)
    optimizer = adamw(model)

    def step() -> None:
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            for slow, fast in zip(average.parameters(), model.parameters(), strict=True):
                slow.lerp_(fast, 0.01)

    ema = dict(average.named_parameters())
    return Setup(step, {"model": model}, [optimizer], {"x": x, "y": y}, ema)


@kind("GAN: two models and two optimizers in one step")
def gan() -> Setup:
    generator, critic = nn.Sequential(Block(), nn.Linear(WIDTH, WIDTH)), nn.Sequential(Block(), nn.Linear(WIDTH, 1))
    real, _ = batch()
    optimizers = [adamw(generator), adamw(critic)]

    def step() -> None:
        fake = generator(torch.randn_like(real))
        F.softplus(critic(fake.detach()) - critic(real)).mean().backward()
        optimizers[1].step()
        optimizers[1].zero_grad()
        F.softplus(-critic(fake)).mean().backward()
        optimizers[0].step()
        for optimizer in optimizers:
            optimizer.zero_grad()

    return Setup(step, {"generator": generator, "critic": critic}, optimizers, {"real": real})


@kind("a copy of the model made and dropped within the step")
def deepcopy_in_step() -> Setup:
    model, (x, y) = Stack(), batch()
    optimizer = adamw(model)

    def step() -> None:
        teacher = copy.deepcopy(model).requires_grad_(False)
        logits = model(x)
        with torch.no_grad():
            target = teacher(x).softmax(-1)
        del teacher
        (F.cross_entropy(logits, y) + F.kl_div(logits.log_softmax(-1), target, reduction="batchmean")).backward()
        optimizer.step()
        optimizer.zero_grad()

    return Setup(step, {"model": model}, [optimizer], {"x": x, "y": y})


class StepFailed(Exception):
    """What a step of the catalogue raises on purpose."""


@kind("an exception in the middle of the backward", raises=StepFailed, warm_steps=0)
def exception() -> Setup:
    model, (x, y) = Stack(), batch()

    def fail(_: Tensor) -> None:
        raise StepFailed

    def step() -> None:
        hidden = model.layers[0](x)
        hidden.register_hook(fail)
        F.cross_entropy(model.head(model.layers[1](hidden)), y).backward()

    return Setup(step, {"model": model}, (), {"x": x, "y": y})


@kind(
    "an exception between forward and backward, the ledger opened late", raises=StepFailed, opens="after", warm_steps=0
)
def exception_in_forward() -> Setup:
    model, (x, y) = Stack(), batch()

    def step() -> None:
        loss = F.cross_entropy(model(x), y)
        raise StepFailed(loss.shape)

    return Setup(step, {"model": model}, (), {"x": x, "y": y})


@kind("two losses on one trunk: backward twice through a retained graph")
def retained_graph() -> Setup:
    model, (x, y) = Stack(), batch()
    second = nn.Linear(WIDTH, 10)
    optimizer = torch.optim.AdamW([*model.parameters(), *second.parameters()], fused=True)

    def step() -> None:
        trunk = model.layers[1](model.layers[0](x))
        F.cross_entropy(model.head(trunk), y).backward(retain_graph=True)
        F.cross_entropy(second(trunk), y).backward()
        optimizer.step()
        optimizer.zero_grad()

    return Setup(step, {"model": model, "second": second}, [optimizer], {"x": x, "y": y})


@kind("every step's loss kept with its graph: a leak", warm_steps=2)
def leaked_losses() -> Setup:
    model, (x, y) = Stack(), batch()
    optimizer, losses = adamw(model), []

    def step() -> None:
        loss = F.cross_entropy(model(x), y)
        losses.append(loss)
        loss.backward(retain_graph=True)
        optimizer.step()
        optimizer.zero_grad()

    return Setup(step, {"model": model}, [optimizer], {"x": x, "y": y})


@kind("training, then a prediction without gradients in the same step", opens="after")
def train_and_evaluate() -> Setup:
    model, (x, y) = Stack(), batch()
    held_out, _ = batch(64)
    optimizer = adamw(model)

    def step() -> None:
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
        model.eval()
        with torch.inference_mode():
            model(held_out).argmax(-1)
        model.train()

    return Setup(step, {"model": model}, [optimizer], {"x": x, "y": y, "held_out": held_out})


@kind("batches from a DataLoader within the step")
def data_loader() -> Setup:
    model, (x, y) = Stack(), batch(64)
    optimizer = adamw(model)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=16, shuffle=True)

    def step() -> None:
        for some_x, some_y in loader:
            F.cross_entropy(model(some_x), some_y).backward()
            optimizer.step()
            optimizer.zero_grad()

    return Setup(step, {"model": model}, [optimizer], {"x": x, "y": y})
