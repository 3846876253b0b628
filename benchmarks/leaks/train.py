"""A small training script without mistakes: a language model of three layers on random tokens.

from benchmarks.leaks.train import Watch, train
with Watch() as watch:
    train(watch)
print(watch.ledger.table())
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import dbbench

LAYERS, WIDTH, HEADS, VOCABULARY = 3, 128, 8, 1024
BATCH, LENGTH, STEPS = 2, 64, 6


class Attention(nn.Module):
    """Causal self-attention on (batch, length, width)."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=-1))
        return self.out(self.attend(q, k, v).transpose(1, 2).flatten(2))

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)


class Layer(nn.Module):
    """Attention and an MLP, each behind a norm and beside a residual connection."""

    def __init__(self) -> None:
        super().__init__()
        self.attention_norm, self.attention = nn.LayerNorm(WIDTH), Attention()
        self.mlp_norm, self.up, self.down = (
            nn.LayerNorm(WIDTH),
            nn.Linear(WIDTH, 4 * WIDTH),
            nn.Linear(4 * WIDTH, WIDTH),
        )
        self.act: nn.Module = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        return x + self.down(self.act(self.up(self.mlp_norm(x))))


class LanguageModel(nn.Module):
    """Tokens (batch, length) to logits (batch, length, vocabulary)."""

    def __init__(self, vocabulary: int = VOCABULARY) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.head = nn.Linear(WIDTH, vocabulary, bias=False)

    def features(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        for layer in self.layers:
            x = layer(x)
        return x

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.features(tokens))


def batches(steps: int = STEPS) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (tokens, the tokens that follow them), each (batch, length)."""
    for _ in range(steps):
        text = torch.randint(VOCABULARY, (BATCH, LENGTH + 1))
        yield text[:, :-1].contiguous(), text[:, 1:].contiguous()


def made() -> tuple[LanguageModel, torch.optim.Optimizer]:
    """Return a fresh model and its optimizer."""
    model = LanguageModel()
    return model, torch.optim.AdamW(model.parameters(), fused=True)


def loss_of(logits: Tensor, following: Tensor) -> Tensor:
    """Return the mean cross-entropy of (batch, length, vocabulary) logits."""
    return F.cross_entropy(logits.flatten(0, 1), following.flatten())


class Watch:
    """Opens a `dbbench.Ledger` in a training loop: around its last step, or from step ``first`` on to its end.

    It is told what a stranger's would be: the model, its optimizer and the batch.
    """

    def __init__(self, first: int | None = None) -> None:
        self.first = STEPS - 1 if first is None else first
        self.ledger: dbbench.Ledger
        self._stack, self._calls = ExitStack(), 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: Any) -> None:
        self._stack.close()

    def __call__(self, model: nn.Module, optimizer: torch.optim.Optimizer, inputs: Any) -> AbstractContextManager[Any]:
        """Return the context for the next step."""
        number, self._calls = self._calls, self._calls + 1
        if number < self.first:
            return nullcontext()
        if number == self.first:
            self.ledger = dbbench.Ledger(model, optimizer, inputs=inputs)
            if number == STEPS - 1:
                return self.ledger
            self._stack.enter_context(self.ledger)
        self.ledger.declare("inputs", "inputs", inputs)
        return self.ledger.step(number)


def ledger_of(script: Callable[[Watch], None], first: int | None = None) -> dbbench.Ledger:
    """Run ``script`` and return the ledger of its last step, or of all its steps from ``first`` on."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with Watch(first) as watch:
        script(watch)
    return watch.ledger


def train(watch: Watch) -> None:
    """Train for `STEPS` steps; nothing outlives its step but the loss of the last one."""
    model, optimizer = made()
    for tokens, following in batches():
        with watch(model, optimizer, (tokens, following)):
            loss = loss_of(model(tokens), following)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
