"""Parameters, gradients and AdamW's state of the paper-scale presets, counted by hand and compared to the byte."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dbbench.harness.resolve import resolve_cell
from dbbench.harness.tracing import ledger_pass
from dbbench.suite.cell import Cell
from dbbench.suite.expand import expand
from dbbench.suite.load import load_suite
from dbbench.suite.schema import Suite, check

SUITE = Path(__file__).parents[2] / "suites" / "paper-scale.yaml"


@dataclass(frozen=True)
class Count:
    """Numbers and tensors of parameters: of a layer, of what is before the layers, and of a head."""

    layer: tuple[int, int]
    before: tuple[int, int]
    head: tuple[int, int]
    number_bytes: int

    def sum(self, layers: int, before: int = 1, heads: int = 1) -> tuple[int, int]:
        """Return (parameters, tensors)."""
        pairs = ((layers, self.layer), (before, self.before), (heads, self.head))
        return sum(n * part[0] for n, part in pairs), sum(n * part[1] for n, part in pairs)


def dit() -> Count:
    """Count DiT: biases everywhere, no affine norms, adaptive layers."""
    d, m, patch = 1152, 4608, 2 * 2 * 4
    layer = (3 * d * d + 3 * d) + (d * d + d) + (d * m + m) + (m * d + d) + (6 * d * d + 6 * d)
    before = (patch * d + d) + (128 * d + d) + (d * d + d) + 1001 * d
    head = (2 * d * d + 2 * d) + (d * patch + patch)
    return Count((layer, 10), (before, 7), (head, 4), 4)


def llama(condition: int | None) -> Count:
    """Count LLaMA-7B without biases; with a condition of that width, its adaptive norms and their noise embedding."""
    d, m, vocabulary = 4096, 11008, 32000
    layer, before, head = (4 * d * d + 3 * d * m + 2 * d, 9), (vocabulary * d, 1), (d + vocabulary * d, 2)
    if condition is None:
        return Count(layer, before, head, 2)
    c = condition
    return Count(
        (layer[0] + 6 * (c * d + d), 11),
        (before[0] + (128 * c + c) + (c * c + c), 5),
        (head[0] + 2 * (c * d + d), 4),
        2,
    )


def cells() -> dict[str, Cell]:
    raw, file = load_suite(str(SUITE))
    return {cell.variant: cell for cell in expand(check(Suite, raw, file), "cpu", file)}


def expected(variant: str) -> dict[str, int]:
    """Return the own peaks of a paper-scale cell in bytes."""
    network, _, method = variant.partition("_")
    depth = 28 if network == "dit" else 32
    count = dit() if network == "dit" else llama(256 if method.startswith("blocks") else None)
    everything, of_a_quarter = count.sum(depth), count.sum(depth // 4)
    parameters, trained, updated = everything, everything, everything
    if method == "greedy":
        parameters = count.sum(depth, heads=4)
        trained = updated = of_a_quarter  # the first stage trains what is before the layers as well
    elif method.startswith("blocks"):
        trained = of_a_quarter  # the shared parts belong to every block
        updated = everything if method == "blocks_all" else of_a_quarter
        parameters = of_a_quarter if method == "blocks_active" else everything
    number = count.number_bytes
    return {
        "parameters": number * parameters[0],
        "gradients": number * trained[0],
        "optimizer": 2 * number * updated[0] + 4 * updated[1],  # two moments, and a float32 counter a tensor
    }


def own_peaks(cell: Cell, **changes: Any) -> dict[str, int]:
    resolved = resolve_cell(cell.model_copy(update=changes), "test")
    return ledger_pass(resolved, resolved.load_task(), fake=True).account.own_peaks


@pytest.mark.slow
@pytest.mark.parametrize("variant", list(cells()))
def test_parameters_gradients_and_optimizer_state_are_those_of_a_hand_count(variant: str) -> None:
    """An estimate would be of another network, or of an optimizer that keeps something else than AdamW does."""
    peaks, count = own_peaks(cells()[variant]), expected(variant)
    assert {role: peaks[role] for role in count} == count
