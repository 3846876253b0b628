"""The largest value that fits: the search over cells, against made-up needs and against direct estimates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from in_process import InProcess
from tiny_cells import make_cell

from dbbench.errors import BadInput
from dbbench.estimate import fit
from dbbench.estimate.fake_cell import estimate_cell
from dbbench.estimate.fit import find_largest
from dbbench.estimate.pool import Job
from dbbench.measure.allocator_settings import AllocatorSettings
from dbbench.results.fit import Fit, FitLine
from dbbench.suite.cell import Cell, NetworkChoice, TaskChoice

MIB = 2**20
NETWORK = NetworkChoice(name="vit", size="micro", depth=4, patch=4)


class MadeUp(InProcess):
    """Answers at once: 100 + 3 a sample for backprop and 1 for others, in MiB; a cell called ``broken`` fails.

    A prediction takes 2 a sample, whatever the method.
    """

    orders: ClassVar[list[int]] = []

    def estimates(self, jobs: Sequence[Job]) -> Iterator[tuple[int, Any]]:
        self.orders.append(len(jobs))
        for index, (cell, settings) in reversed(list(enumerate(jobs))):
            need = MIB * (100 + (3 if cell.method == "backprop" else 1) * cell.batch_size)
            status = "failed" if cell.variant == "broken" else "ok"
            row = SimpleNamespace(
                status=status, error="no data", peak_bytes=need - MIB, residency="all", parameters_count=1
            )
            allocators = [
                SimpleNamespace(
                    reserved_bytes=need,
                    allocated_bytes=need - MIB // 2,
                    out_of_memory=one.capacity_bytes is not None and need > one.capacity_bytes,
                    prediction_fits=one.capacity_bytes is None or 2 * cell.batch_size * MIB <= one.capacity_bytes,
                )
                for one in settings
            ]
            yield index, SimpleNamespace(record=SimpleNamespace(row=row), allocators=allocators)


def search(workers: Any, cells: Sequence[Cell], memories: Sequence[int], **options: Any) -> Fit:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "Workers", workers)
        return find_largest(
            cells, options.pop("axis", "batch"), memories, options.pop("headroom", 0), "test", **options
        )


def line(found: Fit, variant: str) -> FitLine:
    return next(one for one in found.lines if one.variant == variant)


SUITE = [
    make_cell("backprop", network=NETWORK),
    make_cell("check", "checkpointing", network=NETWORK),
    make_cell("broken", "greedy", network=NETWORK),
]


def test_every_variant_gets_an_edge_a_memory_and_its_ratio_to_backprop() -> None:
    """Broken if answers are booked on another variant or memory, or the headroom is not kept free."""
    MadeUp.orders.clear()
    found = search(MadeUp, SUITE, [401 * MIB, 1001 * MIB], headroom=MIB)
    edges = {one.variant: [(e.largest, e.following) for e in one.edges] for one in found.lines}
    assert edges == {"backprop": [(100, 101), (300, 301)], "check": [(300, 301), (900, 901)]}
    assert [found.ratio(line(found, "check"), memory) for memory in (0, 1)] == [3.0, 3.0]
    assert found.failed == {"broken": "at batch 1: no data"}
    assert max(MadeUp.orders) > 1, "variants are probed one after another"
    frame = found.frame()
    row = frame[(frame["variant"] == "check") & (frame["memory_bytes"] == 401 * MIB)].iloc[0]
    assert (row["largest_batch"], row["largest_reserved_bytes"]) == (300, 400 * MIB)
    assert (row["following_batch"], row["following_peak_bytes"]) == (301, 400 * MIB)


def test_training_decides_and_the_prediction_stands_beside() -> None:
    """Broken if a batch that trains counts as too large because a prediction on as many samples does not fit."""
    found = search(MadeUp, SUITE[:2], [400 * MIB, 150 * MIB])
    assert [(e.largest, e.following) for e in line(found, "check").edges] == [(300, 301), (50, 51)]
    predicts = {one.variant: [found.predicts(one, memory) for memory in (0, 1)] for one in found.lines}
    assert predicts == {"backprop": [True, True], "check": [False, True]}, "2 · 300 of 400 MiB, 2 · 50 of 150"
    frame = found.frame().set_index(["variant", "memory_bytes"])["prediction_fits_there"]
    assert [bool(frame["check", memory * MIB]) for memory in (400, 150)] == [False, True]


@pytest.mark.parametrize(("method", "predicts"), [("greedy", False), ("checkpointing", True)])
def test_a_prediction_that_needs_more_than_training_is_told_apart(method: str, predicts: bool) -> None:
    """Broken if it cannot be said which of the two ran out.

    Greedy's prediction keeps a distribution over the vocabulary for each of its heads, more than a stage's training.
    """
    task = TaskChoice.model_validate({"name": "tokens", "sequence_length": 64, "vocabulary": 8192})
    network = NetworkChoice(name="llama", size="micro", depth=4)
    cell = make_cell("cell", method, network=network, task=task, batch_size=32)
    (free,) = estimate_cell(cell, "test", [AllocatorSettings()]).allocators
    assert (free.out_of_memory, free.prediction_fits) == (False, True)
    sizes = (free.reserved_bytes, free.requested_bytes - 1)
    tight, none = estimate_cell(cell, "test", [AllocatorSettings(capacity_bytes=size) for size in sizes]).allocators
    assert (tight.out_of_memory, tight.prediction_fits, tight.reserved_bytes) == (False, predicts, free.reserved_bytes)
    assert (none.out_of_memory, none.prediction_fits) == (True, None)


def test_what_never_fits_and_what_always_does_are_results() -> None:
    """Broken if a memory that is too small, or a cap that is reached, ends the search for the others."""
    found = search(MadeUp, SUITE[:2], [50 * MIB, 400 * MIB], highest=200)
    assert [(e.largest, e.following) for e in line(found, "check").edges] == [(None, 1), (200, None)]
    assert [(e.largest, e.following) for e in line(found, "backprop").edges] == [(None, 1), (100, 101)]
    assert found.ratio(line(found, "check"), 0) is None


def test_a_search_that_cannot_be_is_bad_input() -> None:
    """Broken if a slip on the command line is searched for minutes, or shows a traceback."""
    with pytest.raises(BadInput, match="no more than the headroom"):
        search(MadeUp, SUITE[:1], [MIB], headroom=MIB)
    with pytest.raises(BadInput, match="'digits' has no option 'sequence_length'"):
        search(MadeUp, SUITE[:1], [MIB], axis="sequence")
    blocks = make_cell("blocks", "diffusion_blocks", options={"blocks": 3}, network=NETWORK)
    with pytest.raises(BadInput, match="--max 2: variant 'blocks' cannot be built below depth 3"):
        search(MadeUp, [blocks], [MIB], axis="depth", highest=2)
    with pytest.raises(BadInput, match="expandable_segment"):
        search(MadeUp, SUITE[:1], [MIB], allocator="expandable_segment:True")


#: For the batch a sample of many segments' size: in the tiny network the allocator's gaps are wider than samples are.
IMAGES = {"task": TaskChoice(name="images"), "network": NetworkChoice(name="vit", size="base", depth=4)}


@pytest.mark.slow
@pytest.mark.parametrize("axis", ["batch", "depth"])
def test_the_value_found_fits_and_the_next_does_not_by_a_direct_estimate(axis: str) -> None:
    """Broken if the edge depends on the search: a fresh estimate of either side, replayed by itself, must agree."""
    fields = IMAGES if axis == "batch" else {"network": NETWORK}
    cells = [
        make_cell("backprop", **fields),
        make_cell("blocks", "diffusion_blocks", options={"blocks": 2, "residency": "active"}, **fields),
    ]
    memory, headroom = (1500 if axis == "batch" else 24) * MIB, 2 * MIB
    InProcess.asked = 0
    found = search(InProcess, cells, [memory], axis=axis, headroom=headroom, highest=400)
    assert InProcess.asked == sum(len(one.probes) for one in found.lines) <= 15 * len(cells)
    for cell, one in zip(cells, found.lines, strict=True):
        (edge,) = one.edges
        assert edge.largest is not None and edge.following == edge.largest + 1
        for value, fits in ((edge.largest, True), (edge.following, False)):
            body = cell.model_dump()
            if axis == "batch":
                body["batch_size"] = value
            else:
                body["network"]["depth"] = value
            settings = AllocatorSettings(capacity_bytes=memory - headroom)
            direct = estimate_cell(Cell.model_validate(body), "test", [settings])
            assert direct.allocators[0].out_of_memory is not fits
            assert direct.record.row.peak_bytes == next(p for p in one.probes if p.value == value).peak_bytes
