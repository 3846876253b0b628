"""Counted n-grams: Witten and Bell's formula in exact fractions, the plays' known scores, columns that do not lie."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_cells import make_cell

from dbbench.errors import BadInput
from dbbench.estimate.fake_cell import estimate_or_failure
from dbbench.harness.cell import run_cell
from dbbench.harness.resolve import describe, resolve_cell
from dbbench.methods.base import Plan
from dbbench.methods.ngram import NGram
from dbbench.suite.cell import Budget, Cell, NetworkChoice, TaskChoice
from dbbench.tasks.base import Batch

COUNTS = NetworkChoice(name="counts")
TOKENS = TaskChoice(name="tokens", vocabulary=3, sequence_length=7)


def cell_of(order: int, task: TaskChoice = TOKENS, **changes: Any) -> Cell:
    body: dict[str, Any] = {"task": task, "network": COUNTS, "options": {"order": order}, "batch_size": 4}
    return make_cell("ngram", "ngram", **(body | changes))


def ngram(cell: Cell) -> NGram:
    resolved = resolve_cell(cell, "test")
    method = resolved.build(resolved.load_task())
    assert isinstance(method, NGram)
    return method


def batch_of(windows: list[list[int]]) -> Batch:
    text = torch.tensor(windows)
    return Batch(text[:, :-1], text[:, 1:])


def written_out(seen: list[list[int]], context: list[int], order: int, vocabulary: int) -> list[Fraction]:
    """Return p of every token behind ``context`` by the formula, from the windows ``seen``."""
    p = [Fraction(1, vocabulary)] * vocabulary
    for k in range(min(order, len(context)) + 1):
        after = Counter(
            window[i]
            for window in seen
            for i in range(max(1, k), len(window))
            if window[i - k : i] == context[len(context) - k :]
        )
        if after:
            total, kinds = sum(after.values()), len(after)
            p = [(after[w] + kinds * p[w]) / (total + kinds) for w in range(vocabulary)]
    return p


WINDOWS = st.lists(st.lists(st.integers(0, 2), min_size=8, max_size=8), min_size=1, max_size=6)


@given(order=st.integers(0, 3), first=WINDOWS, second=WINDOWS, asked=WINDOWS)
@settings(max_examples=25, deadline=None)
def test_probabilities_are_witten_and_bells(
    order: int, first: list[list[int]], second: list[list[int]], asked: list[list[int]]
) -> None:
    """The rows to beat would be of other models than those that they are named after, or not sum to one."""
    method = ngram(cell_of(order))
    for step, windows in enumerate((first, second)):
        method.step(batch_of(windows), Plan(step, 0, step, 0.5, 0.5))
    p = method.predict(batch_of(asked).inputs)[""].exp()
    assert p.sum(dim=-1).sub(1).abs().max() < 1e-6
    for row, window in enumerate(asked):
        for place in range(7):
            expected = written_out(first + second, window[: place + 1], order, 3)
            assert p[row, place].tolist() == pytest.approx([float(q) for q in expected], rel=1e-5)


def test_the_loss_of_a_step_is_of_text_not_yet_counted() -> None:
    """A table that has seen the answers would report a loss that no model reaches."""
    method, batch = ngram(cell_of(1)), batch_of([[0, 1, 2, 0, 1, 2, 0, 1], [2, 2, 1, 1, 0, 0, 2, 2]])
    assert float(method.step(batch, Plan(0, 0, 0, 0.0, 0.0)).loss) == pytest.approx(math.log(3))
    predicted = method.predict(batch.inputs)[""].gather(-1, batch.targets.unsqueeze(-1))
    assert float(method.step(batch, Plan(1, 0, 1, 0.5, 0.5)).loss) == pytest.approx(-float(predicted.mean()), rel=1e-5)


def small_text(tmp_path: Path) -> TaskChoice:
    (tmp_path / "text.txt").write_text("the cat sat on the mat\n" * 200)
    size = len(set("the cat sat on the mat\n"))
    return TaskChoice(name="text_folder", folder=str(tmp_path), vocabulary_size=size, sequence_length=16)


def test_text_is_counted_once_however_long_the_budget(tmp_path: Path) -> None:
    """A second epoch would double every count, and an n-gram would be sure of what it has seen once."""
    method = ngram(cell_of(2, small_text(tmp_path)))
    epoch = method.task.batches_per_epoch
    assert epoch
    for step in range(2 * epoch):
        method.step(method.task.train_batch(step), Plan(step, 0, step, 0.5, 0.5))
    assert int(method.tables[0].before[-1]) == epoch * 4 * 16


def test_a_saved_table_goes_on(tmp_path: Path) -> None:
    """An interrupted run would end elsewhere."""
    first, second = (ngram(cell_of(2, small_text(tmp_path))) for _ in range(2))
    batches = [first.task.train_batch(i) for i in range(4)]
    for step in (0, 1):
        first.step(batches[step], Plan(step, 0, step, 0.5, 0.5))
    second.load(first.state())
    for method in (first, second):
        for step in (2, 3):
            method.step(batches[step], Plan(step, 0, step, 0.5, 0.5))
    assert torch.equal(first.predict(batches[0].inputs)[""], second.predict(batches[0].inputs)[""])


def test_its_record_says_what_it_costs(tmp_path: Path) -> None:
    """The rehearsal would show an empty table's bytes, or the row claim trained layers, parameters and FLOPs."""
    task = small_text(tmp_path)
    result = run_cell(cell_of(2, task, budget=Budget(kind="samples", value=200)), "0" * 16, lambda progress: None)
    row, method = result.record.row, ngram(cell_of(2, task))
    for step in range(method.task.batches_per_epoch or 0):
        method.step(method.task.train_batch(step), Plan(step, 0, step, 0.5, 0.5))
    whole = sum(buffer.nbytes for buffer in method.model.buffers())
    assert row.buffers_own_peak_bytes is not None
    assert row.buffers_own_peak_bytes >= whole > 500
    assert row.peak_bytes == row.device_peak_bytes
    assert (row.parameters_count, row.layer_updates, row.flops_train_total, row.uncounted_ops) == (0, 0, 0, "")
    assert row.samples == 200
    assert row.metric_value is not None
    assert row.metric_value < 1.0


def test_what_it_cannot_do_is_said(tmp_path: Path) -> None:
    """A traceback, or an estimate of an empty table."""
    with pytest.raises(BadInput, match=r"order: 3 tokens before one of 70000 have no key of 64 bits"):
        describe(cell_of(3, TaskChoice(name="tokens", vocabulary=70_000, sequence_length=8)))
    with pytest.raises(BadInput, match="network: an n-gram trains none"):
        describe(cell_of(1, network=NetworkChoice(name="llama", size="micro")))
    with pytest.raises(BadInput, match="trains parameters, and the network has none"):
        describe(make_cell("b", "backprop", task=TOKENS, network=COUNTS))
    record = estimate_or_failure(cell_of(1), "test").record
    assert record.row.status == "failed"
    assert "fake tensors hold none" in (record.row.error or "")


SLOW = [pytest.param(order, bits, marks=pytest.mark.slow) for order, bits in ((0, 4.80), (1, 3.61), (4, 2.09))]


@pytest.mark.parametrize(("order", "bits"), [(2, 2.86), *SLOW])
def test_the_plays_score_what_is_known_of_them(order: int, bits: float) -> None:
    """The rows that a network has to beat would be too easy, or too hard: numpy's Witten-Bell has these."""
    method = ngram(cell_of(order, TaskChoice(name="plays", sequence_length=256), batch_size=1024))
    for step in range(method.task.batches_per_epoch or 0):
        method.step(method.task.train_batch(step), Plan(step, 0, step, 0.5, 0.5))
    figures = method.task.evaluate("test", method.predict)[""]
    print(f"order {order}: {figures['bits_per_character']:.3f} bits")
    assert figures["bits_per_character"] == pytest.approx(bits, abs=0.04)
