"""The simulated allocator beside the one of a real device. Needs a GPU (marker ``gpu``)."""

from __future__ import annotations

import pytest
import torch

from benchmarks.allocator_on_cuda import compare_all

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def test_the_simulator_is_the_device_to_the_byte() -> None:
    """Estimates would be of an allocator that no device has: torch's figures after every recorded event."""
    differences = [f"{row.run.label}: {row.difference}" for row in compare_all() if row.difference]
    assert not differences, "\n".join(differences)
