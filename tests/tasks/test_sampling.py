"""Samples: decoded as they say, the same way for every method, kept whole, and measured as published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_cells import make_cell, run_tiny
from torch import Tensor

from dbbench.errors import BadInput
from dbbench.harness.cell import run_cell
from dbbench.results.store import RunFolder
from dbbench.streams import Streams
from dbbench.suite.cell import Budget, Cell, NetworkChoice, TaskChoice
from dbbench.tasks.sampling import continued, distinct, repetition
from dbbench.tasks.text import TextFolder

TABLE = torch.tensor([[0.1, 0.6, 0.3], [0.2, 0.2, 0.6], [0.7, 0.2, 0.1]])


def bigram(tokens: Tensor) -> Tensor:
    return TABLE[tokens].log()


def uniform(seed: int = 0) -> torch.Generator:
    return Streams(seed).generator("samples")


def test_greedy_takes_the_most_probable_token() -> None:
    """The rows called greedy would be draws."""
    prompts = torch.tensor([[2, 0], [0, 1]])
    written = continued(bigram, prompts, 8, uniform())[0]
    assert written.tolist() == [[2, 0, 1, 2, 0, 1, 2, 0], [0, 1, 2, 0, 1, 2, 0, 1]]


def test_draws_follow_the_distribution_and_the_seed() -> None:
    """Temperature 1 would be another temperature, or two methods with one distribution write two texts."""
    prompts = torch.zeros(400, 1, dtype=torch.int64)
    written = continued(bigram, prompts, 40, uniform())[1]
    assert torch.equal(written, continued(bigram, prompts, 40, uniform())[1])
    assert not torch.equal(written, continued(bigram, prompts, 40, uniform(1))[1])
    pairs = torch.zeros(3, 3).index_put_((written[:, :-1].flatten(), written[:, 1:].flatten()), torch.ones(()), True)
    assert torch.allclose(pairs / pairs.sum(dim=1, keepdim=True), TABLE, atol=0.02)


def test_only_what_is_known_is_asked_for() -> None:
    """A token would be chosen by what stands in the place of those still to come."""

    def suspicious(tokens: Tensor) -> Tensor:
        p = bigram(tokens)
        ahead = (tokens == 0).flip(1).cumprod(dim=1).flip(1).bool()  # zeros up to the end
        return p.masked_fill(ahead.roll(1, 1).unsqueeze(-1) & ahead.unsqueeze(-1), float("nan"))

    prompts = torch.tensor([[1, 2], [2, 1]])
    assert torch.equal(continued(suspicious, prompts, 9, uniform()), continued(bigram, prompts, 9, uniform()))


def test_repetition_and_distinctness_are_the_published_ones() -> None:
    """A text that goes in circles would look as rich as another."""
    circle, other = "a b a b a b", "one two three four"
    assert distinct([circle], 1) == pytest.approx(2 / 6)
    assert distinct([circle, other], 2) == pytest.approx((2 + 3) / (5 + 3))
    assert repetition([circle.split()], 2) == pytest.approx(1 - 2 / 5)
    assert repetition([circle.split(), other.split()], 2) == pytest.approx((1 - 2 / 5) / 2)
    assert repetition(["eeeeeeee"], 4) == pytest.approx(1 - 1 / 5)
    assert repetition(["abc", "abcd"], 4) == 0.0
    assert distinct([" \n"], 1) is None
    assert repetition(["abc"], 4) is None


def text_in(tmp_path: Path) -> dict[str, Any]:
    words = [f"w{i}" for i in range(10)]
    body = " ".join(words[(i * i + i // 7) % 10] for i in range(3000))
    (tmp_path / "text.txt").write_text(body)
    return {"folder": str(tmp_path), "vocabulary_size": len(set(body)) + 1, "sequence_length": 24, "samples": 3}


def test_what_is_kept_is_of_the_held_out_text(tmp_path: Path) -> None:
    """A sample would continue text that was trained on, or be shown beside another's continuation."""
    options = text_in(tmp_path)
    task = TextFolder(TextFolder.Options(**options), Streams(0), 2)
    test = task.load(TextFolder.Options(**options), "test").part("test")
    classes = task.shape.classes
    table = torch.rand(classes, classes, generator=torch.Generator().manual_seed(0)).log_softmax(dim=-1)
    made = task.after_training("test", lambda tokens: table[tokens])
    assert made is not None
    assert [d.made_by for d in made.documents] == ["greedy"] * 3 + ["temperature_1"] * 3 + ["held_out"] * 3
    for greedy, drawn, real in zip(made.documents[:3], made.documents[3:6], made.documents[6:], strict=True):
        assert greedy.prompt == drawn.prompt == real.prompt
        assert real.prompt + real.text in test
        assert (len(real.prompt), len(real.text), len(greedy.text)) == (12, 13, 13)
        assert greedy.text != real.text
    assert set(made.figures["held_out"]) <= {"distinct_1", "distinct_2", "repetition_4"}
    assert made.figures["held_out"]["distinct_1"] == distinct([d.text for d in made.documents[6:]], 1)
    options["samples"] = 0
    assert TextFolder(TextFolder.Options(**options), Streams(0), 2).after_training("test", bigram) is None


RECURRENT: dict[str, dict[str, Any]] = {
    "backprop": {"truncate": 1},
    "checkpointing": {"truncate": 2},
    "diffusion_blocks": {"blocks": 1, "shown_draws": [2]},
}


SLOW = [pytest.param(method, marks=pytest.mark.slow) for method in RECURRENT if method != "diffusion_blocks"]


@pytest.mark.parametrize("method", ["diffusion_blocks", *SLOW])
def test_recurrent_depth_writes_samples_under_every_method(tmp_path: Path, method: str) -> None:
    """The rows of recurrent depth would have no samples, or of other prompts than their neighbours."""
    cell = make_cell(
        method, method, task=TaskChoice(name="text_folder", **text_in(tmp_path), evaluation_windows=4),
        network=NetworkChoice(name="recurrent", size="micro"), options=RECURRENT[method], batch_size=8,
        budget=Budget(kind="samples", value=16), evaluations=1,
    )  # fmt: skip
    result = run_cell(cell, "0" * 16, lambda progress: None)
    assert result.samples is not None
    written = result.samples.documents
    assert [d.made_by for d in written] == ["greedy"] * 3 + ["temperature_1"] * 3 + ["held_out"] * 3
    plain = TextFolder(TextFolder.Options(**text_in(tmp_path)), Streams(0), 2)
    others = plain.after_training("test", lambda tokens: torch.zeros(*tokens.shape, plain.shape.classes))
    assert others is not None
    assert [d.prompt for d in written] == [d.prompt for d in others.documents]
    assert {len(d.text) for d in written} == {13}
    ways = {m.variant for m in result.record.metrics if m.name == "repetition_4"}
    assert ways == {"greedy", "temperature_1", "held_out"}


def cells(tmp_path: Path) -> list[Cell]:
    task = TaskChoice(name="text_folder", **text_in(tmp_path))
    body: dict[str, Any] = {"task": task, "budget": Budget(kind="samples", value=16), "evaluations": 1}
    llama, counts = NetworkChoice(name="llama", size="micro", depth=2), NetworkChoice(name="counts")
    return [
        make_cell("blocks", "diffusion_blocks", network=llama, batch_size=8, options={"blocks": 2}, **body),
        make_cell("ngram", "ngram", network=counts, batch_size=8, options={"order": 1}, **body),
        make_cell("digits"),
    ]


@pytest.mark.slow
def test_a_run_keeps_the_samples_of_every_cell_that_makes_any(tmp_path: Path) -> None:
    """Samples would be lost with the process, or a task that makes none need a case in the harness."""
    (tmp_path / "text").mkdir()
    status, shown = run_tiny(cells(tmp_path / "text"), tmp_path / "out")
    assert status == 0, shown
    folder = RunFolder(tmp_path / "out")
    records = {record.row.variant: record for record in folder.read_records()[0]}
    assert folder.read_samples(records["digits"].row.config_hash) is None
    prompts = []
    for variant in ("blocks", "ngram"):
        kept = folder.read_samples(records[variant].row.config_hash)
        assert kept is not None
        assert (kept.variant, kept.split, len(kept.documents)) == (variant, "test", 9)
        prompts.append([document.prompt for document in kept.documents])
        figures = {(m.split, m.variant, m.name): m for m in records[variant].metrics}
        metric = figures["test", "temperature_1", "distinct_1"]
        texts = [document.text for document in kept.documents if document.made_by == "temperature_1"]
        assert metric.value == pytest.approx(distinct(texts, 1))
        assert (metric.unit, metric.direction) == ("of 1-grams of words", "higher")
        assert records[variant].row.metric == "test_bits_per_character"
    assert prompts[0] == prompts[1]
    path = tmp_path / "out" / "samples" / f"{records['ngram'].row.config_hash}.json"
    path.write_text(path.read_text()[:100])
    with pytest.raises(BadInput, match="truncated or not samples"):
        folder.read_samples(records["ngram"].row.config_hash)
