"""Limits by fixture: a ledger around a stretch, and assertions on a training step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_model import TinyModel, make_step


def test_a_ledger_tells_what_is_held(ledger: Any, model: TinyModel, batch: torch.Tensor) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    with ledger(model, optimizer, inputs=batch) as found:
        model(batch).square().mean().backward()
        optimizer.step()
    assert found.peak.split["inputs"] == batch.nbytes
    assert found.peak.split["parameters"] == sum(p.nbytes for p in model.parameters())


@pytest.mark.memory_limit(activations="6 MiB")
def test_the_marker_limits_the_ledger(ledger: Any, model: TinyModel, batch: torch.Tensor) -> None:
    unmeasured = torch.zeros(64 << 20, dtype=torch.uint8)
    with ledger(model):
        model(batch).sum().backward()
    assert unmeasured.nbytes == 64 << 20


def test_checkpointing_saves(assert_peak: Any) -> None:
    _, _, backprop = make_step()
    _, _, step = make_step(recompute=True)
    assert_peak.reference("backprop", backprop)
    assert_peak(step, peak="<= 0.75 * backprop", activations="<= 0.5 * backprop", parameters="== backprop")


@pytest.mark.parametrize("depth", [2, 4])
def test_a_step_fits(assert_peak: Any, depth: int) -> None:
    found = assert_peak(make_step(depth), peak="<= 16 MiB", retained="<= 1 MiB")
    assert found.peak.phase == "backward"
