"""FLOP formulas against counts that are made another way: by loops over groups, taps and positions, or from shapes."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from dbbench.measure.ledger import BareLedger as Ledger


def counted(step: Any) -> tuple[dict[str, int], dict[str, int]]:
    """Return FLOPs by phase of ``step``, which may return something to run a backward from; and what had no formula."""
    with Ledger() as ledger, ledger.step(0):
        out = step()
        if out is not None:
            out.sum().backward()
    return dict(ledger.flops[0][1]), ledger.uncounted


@st.composite
def convolutions(draw: st.DrawFn) -> dict[str, Any]:
    dimension = draw(st.integers(1, 3))
    each = lambda low, high: [draw(st.integers(low, high)) for _ in range(dimension)]  # noqa: E731
    stride = each(1, 3)
    dilation = each(1, 2)
    transposed = draw(st.booleans())
    groups = draw(st.integers(1, 4))
    return {
        "dimension": dimension,
        "groups": groups,
        "ins": groups * draw(st.integers(1, 3)),
        "outs": groups * draw(st.integers(1, 3)),
        "kernel": each(1, 3),
        "stride": stride,
        "dilation": dilation,
        "padding": each(0, 2),
        "output_padding": [draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True)]
        if transposed
        else [0] * dimension,
        "transposed": transposed,
        "size": each(5, 8),
        "batch": draw(st.integers(1, 2)),
        "input_gradient": draw(st.booleans()),
        "weight_gradient": draw(st.booleans()),
        "bias": draw(st.booleans()),
    }


def multiplications(layer: nn.Module, x: Tensor, out: Tensor) -> int:
    """Count the pairs of a value and a weight, group by group: of a convolution each output meets its group's inputs
    at every tap; of a transposed one each input is spread over its group's outputs at every tap."""
    total = 0
    few, positions = (layer.in_channels, x) if layer.transposed else (layer.out_channels, out)
    met = layer.out_channels if layer.transposed else layer.in_channels
    for _ in range(layer.groups):
        for _ in range(few // layer.groups):
            taps = sum(1 for _ in itertools.product(*map(range, layer.kernel_size)))
            total += positions.shape[0] * math.prod(positions.shape[2:]) * taps * (met // layer.groups)
    return total


@settings(max_examples=60, deadline=None)
@given(convolutions())
def test_a_convolution_is_counted_group_by_group(case: dict[str, Any]) -> None:
    """torch's registry counts the backward of a grouped convolution as if every group met every channel."""
    kind = ("ConvTranspose" if case["transposed"] else "Conv") + f"{case['dimension']}d"
    options = {name: case[name] for name in ("stride", "padding", "dilation", "groups", "bias")}
    if case["transposed"]:
        options["output_padding"] = case["output_padding"]
    layer = getattr(nn, kind)(case["ins"], case["outs"], case["kernel"], **options)
    layer.weight.requires_grad_(case["weight_gradient"])
    x = torch.randn(case["batch"], case["ins"], *case["size"], requires_grad=case["input_gradient"])
    try:
        with torch.no_grad():
            out = layer(x)
    except RuntimeError:  # a size that the layer cannot take
        return
    one = 2 * multiplications(layer, x, out)
    gradients = case["input_gradient"] + case["weight_gradient"]
    flops, uncounted = counted(lambda: layer(x) if gradients else layer(x).detach().requires_grad_())
    assert flops.get("forward", 0) == one
    assert flops.get("backward", 0) == gradients * one
    assert not uncounted


@pytest.mark.parametrize(
    ("layer", "size", "input_gradient", "forward", "backward"),
    [
        (nn.Conv1d(8, 16, 3, groups=4, padding=1), (2, 8, 50), False, 19_200, 19_200),
        (nn.Conv2d(16, 16, 3, padding=1, groups=16), (2, 16, 8, 8), True, 36_864, 73_728),
    ],
)
def test_grouped_convolutions_that_were_counted_wrong(
    layer: nn.Module, size: tuple[int, ...], input_gradient: bool, forward: int, backward: int
) -> None:
    x = torch.randn(size, requires_grad=input_gradient)
    assert counted(lambda: layer(x))[0] == {"forward": forward, "backward": backward}


POSITIONS, BATCH, IN, HIDDEN = 5, 3, 8, 16


@pytest.mark.parametrize(("kind", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_recurrent_layer_meets_both_matrices_at_every_position(
    kind: str, gates: int, layers: int, bidirectional: bool
) -> None:
    """The CPU's fused LSTM would count as nothing."""
    ways = 1 + bidirectional
    layer = getattr(nn, kind)(IN, HIDDEN, layers, bidirectional=bidirectional)
    x = torch.randn(POSITIONS, BATCH, IN, requires_grad=True)
    flops, uncounted = counted(lambda: layer(x)[0])
    widths = [IN] + [ways * HIDDEN] * (layers - 1)
    one = sum(2 * POSITIONS * BATCH * ways * gates * HIDDEN * (width + HIDDEN) for width in widths)
    assert flops["forward"] == one
    # the first position's state is a constant: a layer in plain ops spends nothing on its gradient
    first = 2 * BATCH * gates * HIDDEN * HIDDEN * ways * layers
    assert 2 * one - 2 * first <= flops["backward"] <= 2 * one
    assert not uncounted


def test_products_that_are_no_matrix_products() -> None:
    x, y = torch.randn(6, 8, requires_grad=True), torch.randn(6, 9, requires_grad=True)
    outs = 10
    flops, uncounted = counted(lambda: nn.Bilinear(8, 9, outs)(x, y))
    one = 2 * 6 * outs * 8 * 9
    assert flops["forward"] == one + 2 * 6 * outs * 9
    assert 3 * one <= flops["backward"] <= 3 * one + 3 * 2 * 6 * outs * 9 + 2 * 6 * 8 * 9
    assert not uncounted
    rows, others = torch.randn(4, 30, 8, requires_grad=True), torch.randn(4, 40, 8, requires_grad=True)
    for p in (1.0, 2.0):
        flops, uncounted = counted(lambda p=p: torch.cdist(rows, others, p=p))
        assert 2 * 4 * 30 * 40 * 8 <= flops["forward"] <= 2 * 4 * 30 * 40 * 10  # the fast way adds two columns
        assert flops["backward"] >= 2 * 2 * 4 * 30 * 40 * 8
        assert not uncounted
    a, b = torch.randn(7, 5, requires_grad=True), torch.randn(5)
    assert counted(lambda: a @ b)[0]["forward"] == 2 * 7 * 5
    assert counted(lambda: torch.addr(a, torch.ones(7), b))[0]["forward"] == 2 * 7 * 5


def test_transforms_and_linear_algebra() -> None:
    x = torch.randn(4, 1024)
    assert counted(lambda: _none(torch.fft.rfft(x)))[0] == {"forward": 4 * 5 * 1024 * 10 // 2}
    assert counted(lambda: _none(torch.fft.fft2(x + 0j)))[0] == {"forward": 5 * 4 * 1024 * 12}
    square = torch.eye(12) * 3
    assert counted(lambda: _none(torch.linalg.cholesky(square)))[0] == {"forward": 12**3 // 3}
    assert counted(lambda: _none(torch.linalg.inv(square)))[0] == {"forward": 2 * 12**3}
    assert counted(lambda: _none(torch.linalg.solve(square, torch.randn(12, 5))))[0] == {
        "forward": 2 * 12**3 // 3 + 2 * 12 * 12 * 5
    }
    assert counted(lambda: _none(torch.linalg.solve_triangular(square, torch.randn(12, 5), upper=True)))[0] == {
        "forward": 12 * 12 * 5
    }


def _none(value: Any) -> None:
    """Run no backward from ``value``."""


@pytest.mark.parametrize("whole_layer", [False, True])
def test_the_fast_path_counts_as_the_plain_one(whole_layer: bool) -> None:
    """In evaluation torch runs attention, or a whole layer, as one op."""
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, dropout=0.0)
    module = layer if whole_layer else layer.self_attn
    x = torch.randn(2, 5, 32)
    call = (lambda: module(x)) if whole_layer else (lambda: module(x, x, x, need_weights=False)[0])

    def run() -> None:
        with torch.no_grad():
            call()

    module.eval()
    fast, uncounted = counted(run)
    module.train()
    slow, _ = counted(run)
    assert fast == slow
    assert not uncounted


@pytest.mark.parametrize("lists", ["rows", "columns", "batch"])
def test_a_grouped_product_counts_every_row_once(lists: str) -> None:
    """A mixture of experts would count as nothing, or each expert as if it had all tokens."""
    groups, rows, inner, outer = 2, 8, 16, 32
    ends = torch.tensor([3, rows], dtype=torch.int32)
    left = torch.randn((groups, rows, inner) if lists == "batch" else (rows, inner), dtype=torch.bfloat16)
    right = torch.randn(groups, inner, outer, dtype=torch.bfloat16)
    if lists == "columns":
        left, right = torch.randn(outer, rows, dtype=torch.bfloat16), torch.randn(rows, inner, dtype=torch.bfloat16)
        expected = 2 * outer * rows * inner
    else:
        expected = 2 * rows * inner * outer * (groups if lists == "batch" else 1)
    offsets = None if lists == "batch" else ends
    try:
        flops, uncounted = counted(lambda: _none(F.grouped_mm(left, right, offs=offsets)))
    except (RuntimeError, AttributeError) as error:
        pytest.skip(f"not on this build: {error}")
    assert flops == {"forward": expected}
    assert not uncounted


def test_grouped_queries_share_keys_and_cost_as_many_products() -> None:
    q = torch.randn(2, 8, 16, 32, requires_grad=True)
    k, v = (torch.randn(2, 2, 16, 32, requires_grad=True) for _ in range(2))
    flops, uncounted = counted(lambda: F.scaled_dot_product_attention(q, k, v, enable_gqa=True))
    assert flops["forward"] == 2 * (2 * 2 * 8 * 16 * 16 * 32)
    assert not uncounted


def test_a_formula_that_fails_is_an_op_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A release that changes an op's arguments would end the user's training step in our traceback."""
    from dbbench.measure import flop_formulas

    def fails(*args: Any) -> int:
        raise IndexError("no such argument")

    monkeypatch.setitem(flop_formulas.FORMULAS, "mm", fails)
    flops, uncounted = counted(lambda: _none(torch.ones(2, 2) @ torch.ones(2, 2)))
    assert not flops
    assert uncounted == {"aten.mm": 1}


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_prediction_counts_the_same_without_gradients_and_without_tracking(mode: Any) -> None:
    """Under inference mode composite ops come whole: a linear map would count as nothing, its inner tensors neither."""
    net = nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.Unflatten(1, (1, 16)), nn.Conv1d(1, 4, 3))

    def predict() -> None:
        with mode():
            torch.einsum("bct,bdt->bcd", h := net(torch.ones(5, 8)), h)

    flops, uncounted = counted(predict)
    assert flops == {"forward": 2 * 5 * 8 * 16 + 2 * 5 * 4 * 14 * 3 + 2 * 5 * 4 * 4 * 14}
    assert not uncounted
