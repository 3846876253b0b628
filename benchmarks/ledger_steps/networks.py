"""Kinds that differ in their network: small ones of our own, and torch's."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.ledger_steps.catalogue import BATCH, LENGTH, WIDTH, Block, Setup, Stack, adamw, batch, kind


def _classify(
    model: nn.Module, *, inputs: Tensor | None = None, optimizer: torch.optim.Optimizer | None = None
) -> Setup:
    """Return the plainest step: cross entropy of ``model(x)``, AdamW, gradients set to None."""
    x, y = batch()
    x = x if inputs is None else inputs
    optimizer = optimizer or adamw(model)

    def step() -> None:
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()

    return Setup(step, {"model": model}, [optimizer], {"x": x, "y": y})


@kind("residual MLP, AdamW, gradients set to None")
def mlp() -> Setup:
    return _classify(Stack())


@kind("residual MLP, the ledger opened when it has trained already", opens="after")
def mlp_opened_late() -> Setup:
    return _classify(Stack())


@kind("the caller holds logits and loss over the whole step", opens="after")
def logits_held() -> Setup:
    model = Stack()
    setup = _classify(model)
    x, y = setup.inputs.values()

    def step() -> None:
        logits = model(x)
        loss = F.cross_entropy(logits, y)
        loss.backward()
        setup.optimizers[0].step()
        setup.optimizers[0].zero_grad()
        assert logits.grad_fn is not None

    setup.step = step
    return setup


class _SharedDepth(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block, self.head = Block(), nn.Linear(WIDTH, 10)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = self.block(x)
        return self.head(x)


@kind("one block called three times: weights shared in depth")
def shared_depth() -> Setup:
    return _classify(_SharedDepth())


class _Language(nn.Module):
    """Token embedding, one block, and a head that is the embedding again."""

    def __init__(self, vocabulary: int = 50) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, WIDTH)
        self.block = Block()
        self.head = nn.Linear(WIDTH, vocabulary, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.block(self.embed(tokens)))


@kind("embedding and head are one tensor", opens="after")
def tied_weights() -> Setup:
    model = _Language()
    tokens = torch.randint(0, 50, (BATCH, LENGTH))
    optimizer = adamw(model)

    def step() -> None:
        F.cross_entropy(model(tokens)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()

    return Setup(step, {"model": model}, [optimizer], {"tokens": tokens})


@kind("convolutions and batch norm")
def conv_batchnorm() -> Setup:
    def layer(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]

    body = [*layer(3, 8), nn.MaxPool2d(2), *layer(8, 16), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)]
    return _classify(nn.Sequential(*body), inputs=torch.randn(BATCH, 3, 16, 16))


class _Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(WIDTH, WIDTH, num_layers=2, batch_first=True)
        self.head = nn.Linear(WIDTH, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


@kind("two-layer LSTM")
def lstm() -> Setup:
    return _classify(_Recurrent(), inputs=torch.randn(BATCH, LENGTH, WIDTH))


@kind("GRU written out step by step over a sequence", opens="after")
def gru_cell() -> Setup:
    cell, head = nn.GRUCell(WIDTH, WIDTH), nn.Linear(WIDTH, 10)

    class Unrolled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.head = cell, head

        def forward(self, x: Tensor) -> Tensor:
            hidden = x.new_zeros(len(x), WIDTH)
            for position in x.unbind(1):
                hidden = self.cell(position, hidden)
            return self.head(hidden)

    return _classify(Unrolled(), inputs=torch.randn(BATCH, LENGTH, WIDTH))


class _Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 4 * WIDTH, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x).mean(1))


@kind("torch.nn.TransformerEncoder, dropout 0.1")
def transformer_encoder() -> Setup:
    return _classify(_Encoder(), inputs=torch.randn(BATCH, LENGTH, WIDTH))


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.head = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, 10)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, 4, WIDTH // 4)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.head(mixed.transpose(1, 2).flatten(2).mean(1))


@kind("causal attention through scaled_dot_product_attention", opens="after")
def attention() -> Setup:
    return _classify(_Attention(), inputs=torch.randn(BATCH, LENGTH, WIDTH))


class _InPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.head = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, 10)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.dropout(self.up(x), 0.1, training=True, inplace=True)
        hidden.mul_(hidden.detach() > -0.5).add_(0.1)
        return self.head(F.relu(hidden, inplace=True)).clamp_(-10, 10)


@kind("in-place dropout, mask, activation and clamp")
def in_place() -> Setup:
    return _classify(_InPlace())


class _Views(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj, self.scale = nn.Linear(WIDTH, WIDTH), nn.Parameter(torch.ones(WIDTH))
        self.head = nn.Linear(2 * WIDTH, 10)

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.proj(x).chunk(2, dim=-1)
        swapped = torch.cat([second, first], dim=-1) * self.scale.expand(len(x), WIDTH)
        stacked = torch.stack([swapped, x.flip(0)]).transpose(0, 1).reshape(len(x), 2 * WIDTH)
        picked = stacked[torch.arange(len(x) - 1, -1, -1)].contiguous()
        picked[:, :4] = first[:, :4]
        return self.head(picked.as_strided(picked.shape, picked.stride()))


@kind("views, expand, stack, cat, indexing and assignment to a slice", opens="after")
def views() -> Setup:
    return _classify(_Views())


class _Numbers(nn.Module):
    """Numbers of Python in expressions: autograd keeps those it multiplies and divides by, eight bytes each."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.head = nn.Linear(WIDTH, 10)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = 2.0 * layer(x) / 3 + 1 - x * 0.5
        return self.head(x)


@kind("numbers of Python in expressions that autograd keeps (2.0 * x)")
def python_numbers() -> Setup:
    return _classify(_Numbers())


@kind("numbers of Python in expressions, the ledger opened late", opens="after")
def python_numbers_opened_late() -> Setup:
    return _classify(_Numbers())


class _Written(nn.Module):
    """Numbers that reach a tensor by other ways than arithmetic."""

    def __init__(self) -> None:
        super().__init__()
        self.proj, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 10)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.proj(x)
        hidden = torch.where(hidden > 0.1, hidden, -1.0) ** 3 / (1.0 + 2 ** hidden.abs())
        mask = x.new_tensor([1.0] * WIDTH) > torch.tensor(0.5)
        filled = hidden.masked_fill(~mask, 0.0).clone()
        filled[0] = 0.25
        filled[:, 1] = 3
        filled[x > 2.0] = 1.5
        return self.head(2.0 - F.pad(filled, (1, 1), value=0.5)[:, 1:-1].clamp(-1, 1))


@kind("numbers of Python written through indices, masks, where, pow, pad")
def written_numbers() -> Setup:
    return _classify(_Written())


class _Experts(nn.Module):
    """Each row goes to one of three maps: sizes that depend on the data, gathers and scatters."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(WIDTH, 3)
        self.experts = nn.ModuleList(Block() for _ in range(3))
        self.head = nn.Linear(WIDTH, 10)

    def forward(self, x: Tensor) -> Tensor:
        weight, chosen = self.gate(x).softmax(-1).max(-1)
        mixed = torch.zeros_like(x)
        for index, expert in enumerate(self.experts):
            rows = (chosen == index).nonzero().squeeze(1)
            mixed = mixed.index_add(0, rows, expert(x[rows]) * weight[rows, None])
        return self.head(mixed)


@kind("mixture of experts: rows gathered and scattered, sizes from the data")
def mixture_of_experts() -> Setup:
    return _classify(_Experts())


class _Spectral(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.filter = nn.Parameter(torch.randn(LENGTH // 2 + 1, WIDTH, dtype=torch.complex64))
        self.mix, self.head = nn.Parameter(torch.randn(WIDTH, WIDTH) / WIDTH), nn.Linear(WIDTH, 10)

    def forward(self, x: Tensor) -> Tensor:
        filtered = torch.fft.irfft(torch.fft.rfft(x, dim=1) * self.filter, n=LENGTH, dim=1)
        return self.head(torch.einsum("btc,cd->btd", filtered, self.mix).cumsum(1).mean(1))


@kind("Fourier transforms, complex parameters, einsum", opens="after")
def spectral() -> Setup:
    model = _Spectral()
    optimizer = torch.optim.AdamW(model.parameters(), foreach=False)  # the fused kernel refuses complex numbers
    return _classify(model, inputs=torch.randn(BATCH, LENGTH, WIDTH), optimizer=optimizer)


@kind("sequences of unequal length as a jagged nested tensor", opens="after")
def nested_jagged() -> Setup:
    model = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.ReLU(), nn.Linear(2 * WIDTH, WIDTH))
    rows = [torch.randn(n, WIDTH) for n in (3, 7, 5)]
    optimizer = adamw(model)

    def step() -> None:
        ragged = torch.nested.nested_tensor(rows, layout=torch.jagged)
        model(ragged).values().square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    return Setup(step, {"model": model}, [optimizer], {f"row {i}": row for i, row in enumerate(rows)})
