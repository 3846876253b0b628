"""A method without a step on fake tensors beside others: an estimate and a gate say so, and measure the rest."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from in_process import estimate_cells
from typer.testing import CliRunner

from dbbench.cli import app

SUITE = """
suite: made-up
task: {name: tokens, vocabulary: 11, sequence_length: 8}
network: {name: llama, size: micro, depth: 2}
budget: {kind: samples, value: 32}
batch_size: 8
seeds: [0]
methods:
  backprop: {}
  ngram: {order: 1, network: {name: counts}}
"""
WHY = "not measured: tables of counts grow with the text that they have seen"


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the suite's file; its estimates are made in this process."""
    monkeypatch.setattr("dbbench.estimate.suite.estimate_cells", estimate_cells)
    path = tmp_path / "made-up.yaml"
    path.write_text(SUITE)
    return path


def ran(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(map(str, words)))
    return result.exit_code, " ".join(result.output.split())


def test_an_estimate_says_so_and_is_no_failure(suite: Path, tmp_path: Path) -> None:
    """A suite with a table of counts in it could not be estimated, or its row be left out without a word."""
    status, shown = ran("estimate", suite, "--out", tmp_path / "out")
    assert status == 0, shown
    assert "ngram: tables of counts grow with the text" in shown and "NotImplementedError" not in shown
    frame = pd.read_parquet(tmp_path / "out" / "results.parquet").set_index("variant")
    assert frame.loc["backprop", "status"] == "ok" and pd.isna(frame.loc["ngram", "peak_bytes"])
    assert "tables of counts grow" in (tmp_path / "out" / "estimate.md").read_text()


def test_an_estimate_of_nothing_else_is_one(suite: Path) -> None:
    """An empty table would be a success."""
    status, shown = ran("estimate", suite, "--only", "method=ngram")
    assert status == 1
    assert "fake tensors hold none" in shown


def test_a_mistake_is_one_all_the_same(suite: Path) -> None:
    """An order without a key would be found by the run alone."""
    status, shown = ran("estimate", suite, "--set", "methods.ngram.order=40")
    assert status == 2
    assert "methods.ngram.order: 40 tokens before one of 11 have no key" in shown


def test_a_gate_notes_it_and_compares_the_rest(suite: Path, tmp_path: Path) -> None:
    """A baseline of the suite could never be green, or the cell be taken for one that is gone."""
    order = ["check", "--fake", suite, "--baseline", tmp_path / "gate.tsv", "--no-github"]
    status, shown = ran(*order, "--update")
    assert (status, WHY in shown) == (0, True), shown
    assert "ngram" not in (tmp_path / "gate.tsv").read_text()
    status, shown = ran(*order)
    assert (status, f"made-up/ngram: {WHY}" in shown) == (0, True), shown
    assert ran(*order, "--only", "method=ngram")[0] == 7  # nothing compared
