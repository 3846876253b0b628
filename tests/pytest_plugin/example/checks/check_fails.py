"""Tests that fail, on purpose, for what is in their names."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_model import TinyModel, make_step


@pytest.mark.memory_limit(activations="2 MiB")
def test_activations_by_marker(model: TinyModel, batch: torch.Tensor) -> None:
    model(batch).sum().backward()


@pytest.mark.memory_limit(optimizer="1 MiB")
def test_optimizer_by_ledger(ledger: Any, model: TinyModel, batch: torch.Tensor) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    with ledger(model, optimizer):
        model(batch).sum().backward()
        optimizer.step()


def test_activations_against_a_reference(assert_peak: Any) -> None:
    _, _, checkpointing = make_step(recompute=True)
    _, _, step = make_step()
    assert_peak(step, activations="<= 1.5 * checkpointing", checkpointing=checkpointing)


@pytest.mark.memory_limit(peak=1)
def test_another_reason(model: TinyModel, batch: torch.Tensor) -> None:
    assert model(batch).shape == (0, 0), "another reason"
