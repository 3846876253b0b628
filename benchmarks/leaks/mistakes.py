"""Twelve copies of `benchmarks.leaks.train.train`, each with one mistake that costs memory.

The function's docstring is the story. What the mistake holds is counted by hand from the script's shapes, in bytes, at
the peak of the last step, so that nothing of the ledger is in it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.leaks.catalogue import Sign, mistake
from benchmarks.leaks.train import (
    BATCH,
    HEADS,
    LAYERS,
    LENGTH,
    STEPS,
    VOCABULARY,
    WIDTH,
    Attention,
    LanguageModel,
    Watch,
    batches,
    loss_of,
    made,
)

FLOAT = 4
TOKENS = BATCH * LENGTH
EARLIER = STEPS - 1  # steps before the one that is measured
PARAMETERS_BYTES = FLOAT * (
    2 * VOCABULARY * WIDTH  # embedding and head
    + LAYERS * (4 * WIDTH + (4 * WIDTH + 8 * WIDTH) * WIDTH + (4 + 4 + 1) * WIDTH)  # norms, weights, biases
)
#: What autograd keeps of one pass, but for the tokens. In a layer: the inputs and results of both norms, q, k and v,
#: the attention's result, GELU's input and result; each norm's mean and deviation; each row's sum in the attention.
#: Then the head's input, the log-softmax behind it, and the sum of the loss's weights.
GRAPH_BYTES = FLOAT * (
    LAYERS * TOKENS * ((2 + 2 + 3 + 1 + 4 + 4) * WIDTH + 2 * 2 + HEADS) + TOKENS * (WIDTH + VOCABULARY) + 1
)


@mistake(
    Sign("retained", EARLIER * GRAPH_BYTES, holder=r"graph of local 'losses\[[\d.,]+\]' in keep_losses", exact=False)
)
def keep_losses(watch: Watch) -> None:
    """Validates without `no_grad` and keeps every loss for a plot, and with it the graph of its pass."""
    model, optimizer = made()
    losses = []
    for (tokens, following), (unseen, after) in zip(batches(), batches(), strict=True):
        with watch(model, optimizer, (tokens, following, unseen, after)):
            loss = loss_of(model(tokens), following)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss_of(model(unseen), after))


@mistake(Sign("retained", GRAPH_BYTES, holder="graph of local 'loss' in retain_graph", exact=False))
def retain_graph(watch: Watch) -> None:
    """Calls `backward(retain_graph=True)`, so that a step's graph lives until the next loss takes its name."""
    model, optimizer = made()
    for tokens, following in batches():
        with watch(model, optimizer, (tokens, following)):
            loss = loss_of(model(tokens), following)
            loss.backward(retain_graph=True)
            optimizer.step()
            optimizer.zero_grad()


def remembering(features: list[Tensor]) -> Callable[[nn.Module, Any, Tensor], None]:
    """Return a forward hook that puts what a module returns into ``features``."""

    def remember(module: nn.Module, given: Any, output: Tensor) -> None:
        features.append(output)

    return remember


@mistake(
    Sign(
        "retained",
        EARLIER * TOKENS * WIDTH * FLOAT,
        holder=r"local 'hook of model\.layers\.1\.<features>\[[\d.,]+\]' in hook_outputs",
    )
)
def hook_outputs(watch: Watch) -> None:
    """Leaves a forward hook on a layer that keeps what it returns, step after step."""
    model, optimizer = made()
    model.layers[1].register_forward_hook(remembering([]))
    for tokens, following in batches():
        with watch(model, optimizer, (tokens, following)):
            loss = loss_of(model(tokens), following)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()


@mistake(Sign("gradients", PARAMETERS_BYTES))
def forget_zero_grad(watch: Watch) -> None:
    """Never calls `zero_grad`: the last step's gradients are there while the next forward runs."""
    model, optimizer = made()
    for tokens, following in batches():
        with watch(model, optimizer, (tokens, following)):
            loss = loss_of(model(tokens), following)
            loss.backward()
            optimizer.step()


@mistake(Sign("temporaries", PARAMETERS_BYTES, op=r"aten\._foreach_.+", exact=False))
def foreach_optimizer(watch: Watch) -> None:
    """Uses AdamW's foreach implementation, whose update makes scratch the size of the model."""
    model = LanguageModel()
    optimizer = torch.optim.AdamW(model.parameters(), foreach=True)
    for tokens, following in batches():
        with watch(model, optimizer, (tokens, following)):
            loss = loss_of(model(tokens), following)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()


@mistake(Sign("ema", PARAMETERS_BYTES, holder=r"LanguageModel\b.+"))
def average_on_device(watch: Watch) -> None:
    """Keeps a moving average of the weights beside the model instead of on the host."""
    model, optimizer = made()
    average = copy.deepcopy(model).requires_grad_(False)
    for tokens, following in batches():
        with watch(model, optimizer, (tokens, following)):
            loss = loss_of(model(tokens), following)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            for mean, parameter in zip(average.parameters(), model.parameters(), strict=True):
                mean.lerp_(parameter.detach(), 0.01)


_HEAD_BYTES = VOCABULARY * WIDTH * FLOAT


@mistake(
    Sign("parameters", _HEAD_BYTES, module="head"),
    Sign("optimizer", 2 * _HEAD_BYTES, module="head"),
    Sign("activations", TOKENS * VOCABULARY * FLOAT, holder="output of _log_softmax"),
)
def double_head(watch: Watch) -> None:
    """Gives the model a head for twice as many tokens as there are."""
    model = LanguageModel(vocabulary=2 * VOCABULARY)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    for tokens, following in batches():
        with watch(model, optimizer, (tokens, following)):
            loss = loss_of(model(tokens), following)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()


class PlainAttention(Attention):
    """Attention in plain ops, so that its weights can be looked at."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        future = torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1)
        scores = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).masked_fill(future, float("-inf"))
        return scores.softmax(-1) @ v


@mistake(
    Sign(
        "activations",
        BATCH * HEADS * LENGTH * LENGTH * FLOAT,
        module=r"layers\.1\.attention",
        holder="output of _softmax.*",
    )
)
def plain_attention(watch: Watch) -> None:
    """Writes one layer's attention out in plain ops, so that its length × length weights are kept."""
    model = LanguageModel()
    model.layers[1].attention = PlainAttention()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    for tokens, following in batches():
        with watch(model, optimizer, (tokens, following)):
            loss = loss_of(model(tokens), following)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()


_LONGEST = 1024


@mistake(Sign("buffers", LAYERS * _LONGEST**2, module=r"layers\.[\d{}.,]+\.attention"))
def mask_per_layer(watch: Watch) -> None:
    """Registers a causal mask for the longest text in every layer, where one or none would do."""
    model, optimizer = made()
    for layer in model.layers:
        layer.attention.register_buffer("mask", torch.ones(_LONGEST, _LONGEST, dtype=torch.bool).tril())
    for tokens, following in batches():
        with watch(model, optimizer, (tokens, following)):
            loss = loss_of(model(tokens), following)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()


SEEN: dict[int, Tensor] = {}


@mistake(
    Sign(
        "retained",
        EARLIER * TOKENS * VOCABULARY * FLOAT,
        holder=r"global 'SEEN\[[\d.,]+\]' in benchmarks\.leaks\.mistakes",
    )
)
def global_cache(watch: Watch) -> None:
    """Puts every step's logits into a dictionary of the module that nobody empties."""
    model, optimizer = made()
    for number, (tokens, following) in enumerate(batches()):
        with watch(model, optimizer, (tokens, following)):
            logits = model(tokens)
            SEEN[number] = logits.detach()
            loss = loss_of(logits, following)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    SEEN.clear()  # the scripts after this one are not to find it


@mistake(
    Sign(
        "retained",
        2 * GRAPH_BYTES,
        holder=r"(graph of )?local 'failures\[[\d.,]+\]\.__traceback__\.loss_of\.logits' in keep_errors",
        exact=False,
    ),
)
def keep_errors(watch: Watch) -> None:
    """Skips batches with bad labels and keeps the exceptions, whose tracebacks keep the frames that were running."""
    model, optimizer = made()
    failures = []
    for number, (tokens, following) in enumerate(batches()):
        if number in (1, 3):
            following[0, 0] = VOCABULARY
        with watch(model, optimizer, (tokens, following)):
            try:
                loss = loss_of(model(tokens), following)
                loss.backward()
                optimizer.step()
            except IndexError as error:
                failures.append(error)
            optimizer.zero_grad()


class SquaredReLU(torch.autograd.Function):
    """relu(x)², with its input kept as an attribute of ``ctx`` where ``save_for_backward`` belongs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.x = x
        return F.relu(x).square()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * 2 * F.relu(ctx.x)


class Activation(nn.Module):
    """`SquaredReLU` as a module."""

    def forward(self, x: Tensor) -> Tensor:
        return SquaredReLU.apply(x)


@mistake(
    Sign(
        "retained",
        EARLIER * LAYERS * TOKENS * 4 * WIDTH * FLOAT,
        holder="ctx.x of SquaredReLU in the graph of local 'total' in sum_losses",
    ),
)
def sum_losses(watch: Watch) -> None:
    """Adds losses up with their graphs, which a backward empties but for what an `autograd.Function` put on its ctx."""
    model, optimizer = made()
    for layer in model.layers:
        layer.act = Activation()
    total = torch.zeros(())
    for tokens, following in batches():
        with watch(model, optimizer, (tokens, following)):
            loss = loss_of(model(tokens), following)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            total = total + loss
