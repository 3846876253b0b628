"""Kinds that differ in the kernels that they call: recurrent layers, convolutions, transforms, look-ups, solves."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.ledger_steps.catalogue import BATCH, LENGTH, WIDTH, Setup, adamw, kind


class Calls(nn.Module):
    """A layer and a function that makes a tensor of what it gives."""

    def __init__(self, layer: nn.Module, call: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self._call = layer, call

    def forward(self, x: Tensor) -> Tensor:
        """Call the layer."""
        return self._call(self.layer, x)


def _with(layer: nn.Module, x: Tensor, call: Callable[[nn.Module, Tensor], Tensor] = lambda m, x: m(x)) -> Setup:
    model = Calls(layer, call)
    optimizer = adamw(model)

    def step() -> None:
        model(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    return Setup(step, {"model": model}, [optimizer], {"x": x})


def _sequence() -> Tensor:
    return torch.randn(BATCH, LENGTH, WIDTH)


@kind("LSTM of two layers in both directions, the CPU's fused kernel")
def lstm_bidirectional() -> Setup:
    return _with(nn.LSTM(WIDTH, WIDTH, 2, batch_first=True, bidirectional=True), _sequence(), lambda m, x: m(x)[0])


@kind("GRU", opens="after")
def gru() -> Setup:
    return _with(nn.GRU(WIDTH, WIDTH, batch_first=True), _sequence(), lambda m, x: m(x)[0])


@kind("RNN with dropout between its layers")
def rnn() -> Setup:
    return _with(nn.RNN(WIDTH, WIDTH, 2, batch_first=True, dropout=0.2), _sequence(), lambda m, x: m(x)[0])


@kind("cells of an LSTM, unrolled by hand", opens="after")
def lstm_cells() -> Setup:
    def unrolled(cell: nn.Module, x: Tensor) -> Tensor:
        state = None
        for position in range(LENGTH):
            state = cell(x[:, position], state)
        assert state is not None
        return state[0]

    return _with(nn.LSTMCell(WIDTH, WIDTH), _sequence(), unrolled)


@kind("bilinear layer")
def bilinear() -> Setup:
    return _with(nn.Bilinear(WIDTH, WIDTH, 10), torch.randn(BATCH, WIDTH), lambda m, x: m(x, x.flip(0)))


@kind("distances to prototypes: cdist")
def distances() -> Setup:
    prototypes = nn.Linear(WIDTH, 40)
    return _with(prototypes, torch.randn(BATCH, WIDTH), lambda m, x: torch.cdist(x, m.weight, p=1.0).neg().exp())


@kind("Fourier transform of the features, filtered and back", opens="after")
def fourier() -> Setup:
    def filtered(layer: nn.Module, x: Tensor) -> Tensor:
        return torch.fft.irfft(torch.fft.rfft(layer(x)) * 0.5, n=WIDTH)

    return _with(nn.Linear(WIDTH, WIDTH), _sequence(), filtered)


@kind("bag of embeddings")
def embedding_bag() -> Setup:
    return _with(nn.EmbeddingBag(100, WIDTH, mode="mean"), torch.randint(0, 100, (BATCH, LENGTH)))


@kind("convolution in one dimension, grouped, dilated, strided", opens="after")
def convolution_1d_grouped() -> Setup:
    return _with(nn.Conv1d(8, 16, 3, groups=4, dilation=2, stride=2, padding=1), torch.randn(BATCH, 8, 50))


@kind("depthwise convolution, then pointwise")
def convolution_depthwise() -> Setup:
    layers = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.Conv2d(16, 16, 1))
    return _with(layers, torch.randn(BATCH, 16, 8, 8))


@kind("convolution in three dimensions", opens="after")
def convolution_3d() -> Setup:
    return _with(nn.Conv3d(2, 4, 3, padding=1), torch.randn(2, 2, 6, 6, 6))


@kind("transposed convolution, grouped")
def convolution_transposed() -> Setup:
    return _with(nn.ConvTranspose2d(8, 16, 3, stride=2, groups=2, output_padding=1), torch.randn(4, 8, 6, 6))


@kind("attention with a mask of its own and grouped queries")
def attention_masked() -> Setup:
    def attend(layer: nn.Module, x: Tensor) -> Tensor:
        heads = layer(x).view(BATCH, LENGTH, 4, WIDTH // 4).transpose(1, 2)
        mask = torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril()
        return F.scaled_dot_product_attention(heads, heads[:, :2], heads[:, :2], attn_mask=mask, enable_gqa=True)

    return _with(nn.Linear(WIDTH, WIDTH), _sequence(), attend)


@kind("a linear system solved for each sample", opens="after")
def linear_solve() -> Setup:
    def solved(layer: nn.Module, x: Tensor) -> Tensor:
        matrices = layer(x).unsqueeze(-1) * 0.01 + torch.eye(WIDTH)
        return torch.linalg.solve(matrices, x)

    return _with(nn.Linear(WIDTH, WIDTH), torch.randn(BATCH, WIDTH), solved)


@kind("a triangular factor of a covariance: cholesky")
def cholesky() -> Setup:
    def factor(layer: nn.Module, x: Tensor) -> Tensor:
        features = layer(x)
        return torch.linalg.cholesky(features.T @ features + torch.eye(WIDTH))

    return _with(nn.Linear(WIDTH, WIDTH), torch.randn(BATCH, WIDTH), factor)


@kind("CTC loss over characters", opens="after")
def ctc() -> Setup:
    targets, lengths = torch.randint(1, 10, (BATCH, 4)), torch.full((BATCH,), LENGTH)

    def loss(layer: nn.Module, x: Tensor) -> Tensor:
        scores = layer(x).log_softmax(-1).transpose(0, 1)
        return F.ctc_loss(scores, targets, lengths, torch.full((BATCH,), 4))

    return _with(nn.Linear(WIDTH, 10), _sequence(), loss)


@kind("patches taken out and put back: unfold and fold")
def unfold_and_fold() -> Setup:
    def patched(layer: nn.Module, x: Tensor) -> Tensor:
        return F.fold(layer(F.unfold(x, 4, stride=4).transpose(1, 2)).transpose(1, 2), 8, 4, stride=4)

    return _with(nn.Linear(48, 48), torch.randn(BATCH, 3, 8, 8), patched)


@kind("group norm, pooling and upsampling", opens="after")
def norm_pool_upsample() -> Setup:
    def through(layer: nn.Module, x: Tensor) -> Tensor:
        return F.interpolate(F.max_pool2d(layer(x), 2), scale_factor=2.0, mode="bicubic")

    return _with(nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.GroupNorm(2, 8)), torch.randn(4, 4, 8, 8), through)
