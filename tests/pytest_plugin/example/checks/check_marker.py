"""Limits by marker: on a function, a class, one parameter of many."""

from __future__ import annotations

import pytest
import torch
from tiny_model import BATCH, WIDTH, TinyModel


@pytest.mark.memory_limit(peak="10 MiB", activations="6 MiB")
def test_a_forward_and_a_backward(model: TinyModel, batch: torch.Tensor) -> None:
    model(batch).square().mean().backward()
    assert model.head.weight.grad is not None


@pytest.mark.memory_limit(activations=0, gradients=0)
def test_a_prediction_keeps_nothing(model: TinyModel, batch: torch.Tensor) -> None:
    with torch.no_grad():
        assert model(batch).shape == (BATCH, 1)


@pytest.mark.memory_limit(peak="10 MiB")
class TestClass:
    """What its methods share counts, and the limit of its own that a method has comes first."""

    @pytest.fixture(autouse=True)
    def _trained(self, model: TinyModel) -> None:
        self.model = model

    def test_inherits(self, batch: torch.Tensor) -> None:
        self.model(batch).sum().backward()

    @pytest.mark.memory_limit(peak="1 GiB")
    def test_overrides(self) -> None:
        self.model(torch.randn(8 * BATCH, WIDTH)).sum().backward()


@pytest.mark.parametrize(
    ("depth", "recompute"),
    [
        pytest.param(1, False, marks=pytest.mark.memory_limit(activations="2 MiB")),
        pytest.param(4, True, marks=pytest.mark.memory_limit(activations="2.5 MiB")),
        pytest.param(4, False, marks=[pytest.mark.memory_limit(activations="2 MiB"), pytest.mark.xfail(strict=True)]),
    ],
)
def test_depth(depth: int, recompute: bool, batch: torch.Tensor) -> None:
    TinyModel(depth, recompute)(batch).sum().backward()
