"""Fixtures of the checks: one model and one batch for each."""

from __future__ import annotations

import pytest
import torch
from tiny_model import BATCH, WIDTH, TinyModel


@pytest.fixture
def model() -> TinyModel:
    torch.manual_seed(0)
    return TinyModel()


@pytest.fixture
def batch() -> torch.Tensor:
    return torch.randn(BATCH, WIDTH)
