"""FLOPs by the precision that computes them, and the rate that follows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from dbbench.measure.precision import flops_by_precision, rate_of

A100 = "NVIDIA A100-SXM4-80GB"


@pytest.fixture
def matmul() -> Iterator[Any]:
    """cuBLAS's switches, without tf32 as torch has them, and put back afterwards."""
    switches: Any = torch.backends.cuda.matmul
    before, switches.fp32_precision = switches.fp32_precision, "ieee"
    yield switches
    switches.fp32_precision = before


def test_flops_are_told_apart_by_what_computes_them(matmul: Any) -> None:
    """A bf16 step would be held to the rate of fp32, or fp32 products to that of tensor cores."""
    model, x = nn.Linear(8, 4), torch.randn(2, 8)
    once = 2 * 2 * 8 * 4

    def cast_and_not() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            model(x)
        model(x).sum().backward()

    assert flops_by_precision(lambda: model(x)) == {"fp32": once}
    assert flops_by_precision(cast_and_not) == {"bf16": once, "fp32": 2 * once}
    matmul.fp32_precision = "tf32"
    assert flops_by_precision(lambda: model(x)) == {"tf32": once}
    assert flops_by_precision(lambda: model.double()(x.double())) == {"float64": once}


def test_convolutions_have_a_switch_of_their_own(matmul: Any) -> None:
    """torch lets cuDNN use tf32 by default and cuBLAS not: one switch for both would be wrong for one."""
    convolution, image = nn.Conv2d(1, 1, 3), torch.randn(1, 1, 8, 8)
    assert torch.backends.cudnn.conv.fp32_precision == "tf32"  # type: ignore[attr-defined]
    assert set(flops_by_precision(lambda: convolution(image))) == {"tf32"}


def test_the_rate_is_that_of_most_flops() -> None:
    """Mixed precision would be held to the slower rate, and look better than it is."""
    rate, source = rate_of(A100, {"bf16": 90, "fp32": 10})
    assert rate == 312e12
    assert "90.0% of the FLOPs are bf16" in source
    assert rate_of(A100, {"bf16": 1})[1].endswith("312 TFLOP/s dense bf16")


@pytest.mark.parametrize(("flops", "word"), [({"float64": 1}, "float64"), ({}, "no FLOPs")])
def test_flops_without_a_rate_have_a_reason(flops: dict[str, int], word: str) -> None:
    """A step would be held to a rate of another kind of number."""
    rate, reason = rate_of(A100, flops)
    assert rate is None and word in reason
