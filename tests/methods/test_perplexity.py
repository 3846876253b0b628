"""Perplexity is of a distribution: every way of predicting sums to one, and a known one scores its closed form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_cells import make_cell
from torch import Tensor

from dbbench.harness.cell import run_cell
from dbbench.harness.resolve import resolve_cell
from dbbench.harness.tracing import rehearsal
from dbbench.harness.training import Loop
from dbbench.methods.base import Method
from dbbench.methods.diffusion_blocks import DiffusionBlocks
from dbbench.methods.masked_blocks import MaskedBlocks
from dbbench.suite.cell import Budget, Cell, NetworkChoice, OptimizerChoice, TaskChoice

LENGTH, WINDOWS = 16, 5
LLAMA = NetworkChoice(name="llama", size="micro", depth=2)


@pytest.fixture
def letters(tmp_path: Path) -> TaskChoice:
    """Return a task on 6,000 letters of four kinds."""
    return letters_in(tmp_path, "text_folder", 6000, evaluation_windows=WINDOWS)


@pytest.fixture
def masked_letters(tmp_path: Path) -> TaskChoice:
    """Return a task on 30,000 such letters under masks, each window of which is read 48 times."""
    return letters_in(tmp_path, "masked_text_folder", 30_000, evaluation_draws=48)


def letters_in(folder: Path, task: str, number: int, **options: int) -> TaskChoice:
    generator = np.random.Generator(np.random.PCG64(0))
    (folder / "letters.txt").write_text("".join(generator.choice(list("abc\n"), number, p=[0.5, 0.3, 0.15, 0.05])))
    return TaskChoice(name=task, folder=str(folder), vocabulary_size=4, sequence_length=LENGTH, **options)


def cell_on(task: TaskChoice, method: str, network: NetworkChoice = LLAMA, **options: Any) -> Cell:
    return make_cell(
        "cell", method, task=task, network=network, options=options, batch_size=8,
        budget=Budget(kind="samples", value=16), evaluations=1,
        optimizer=OptimizerChoice(lr=1e-12),
    )  # fmt: skip


def built(cell: Cell) -> Method:
    resolved = resolve_cell(cell, "test")
    return resolved.build(resolved.load_task())


def closed_form(method: Method, probabilities: Tensor) -> float:
    """Return the bits a token of the test part's chosen windows under p [token before, token], from the text itself."""
    tokens = method.task._tokens["test"]  # type: ignore[attr-defined]
    count = (len(tokens) - 1) // LENGTH
    places = np.concatenate([LENGTH * (i * count // WINDOWS) + np.arange(LENGTH) for i in range(WINDOWS)])
    return float(-np.log2(probabilities.double().numpy()[tokens[places], tokens[places + 1]]).mean())


def test_a_bigram_table_as_a_network_scores_its_closed_form_in_a_record(letters: TaskChoice) -> None:
    """What a report prints as bits per character would not be the text's cross-entropy under the model."""
    cell = cell_on(letters, "backprop", NetworkChoice(name="toy_methods.bigram:BigramTable"))
    record = run_cell(cell, "0" * 16, lambda progress: None).record
    method = built(cell)
    expected = closed_form(method, method.network.table.detach().softmax(dim=-1))
    found = {(m.split, m.name): m.value for m in record.metrics}
    assert record.row.metric == "test_bits_per_character"
    assert record.row.metric_value == pytest.approx(expected, rel=1e-5)
    assert found["test", "perplexity"] == pytest.approx(2**expected, rel=1e-5)


def test_chains_of_known_denoisers_score_the_closed_form_of_their_mixture(letters: TaskChoice) -> None:
    """The mean of N draws would be of logits or of scores, which is no distribution, or of other draws."""
    method = built(cell_on(letters, "diffusion_blocks", blocks=2, shown_draws=[1, 2, 4], inference_draws=2))
    assert isinstance(method, DiffusionBlocks)
    tables = torch.rand(4, 4, 4, generator=torch.Generator().manual_seed(3)) + 0.1
    tables /= tables.sum(dim=-1, keepdim=True)

    def asked(inputs: Tensor, sigma: Tensor, block: int) -> Any:
        draws = iter(tables)  # a draw has a table of its own
        return lambda z: next(draws)[inputs].log()

    method.asked = asked  # type: ignore[method-assign]
    figures = method.task.evaluate("test", method.predict)
    for way, count in {"": 2, "draws_1": 1, "draws_2": 2, "draws_4": 4, "first_block": 1}.items():
        expected = closed_form(method, tables[:count].mean(dim=0))
        assert figures[way]["bits_per_character"] == pytest.approx(expected, rel=1e-5), way
        assert figures[way]["perplexity"] == pytest.approx(2**expected, rel=1e-5), way


def bits_of_letters(method: Method, probabilities: Tensor) -> float:
    """Return the bits a token of the test part's windows under p [token], from the text itself."""
    tokens = method.task._tokens["test"]  # type: ignore[attr-defined]
    read = tokens[: (len(tokens) - 1) // LENGTH * LENGTH]
    return float(-np.log2(probabilities.double().numpy()[read]).mean())


def test_a_unigram_table_scores_its_closed_form_under_masks_in_a_record(
    masked_letters: TaskChoice,
) -> None:
    """The bound would not be that of the model: of letters that it takes for independent of each other the bound is
    tight, ∫ 1/t · Σ_i t · (−log p(x_i)) dt, the cross-entropy, whatever p is."""
    cell = cell_on(masked_letters, "backprop", NetworkChoice(name="toy_methods.unigram:UnigramTable"))
    record = run_cell(cell, "0" * 16, lambda progress: None).record
    method = built(cell)
    expected = bits_of_letters(method, method.network.table.detach().softmax(dim=-1))
    found = {(m.split, m.name): m.value for m in record.metrics if not m.variant}
    error = found["test", "standard_error"]
    assert record.row.metric == "test_bits_per_character"
    assert error < 0.03 * expected
    assert record.row.metric_value == pytest.approx(expected, abs=3 * error)
    assert np.log2(found["test", "perplexity"]) == pytest.approx(record.row.metric_value, rel=1e-5)


def test_blocks_of_known_tables_score_the_mean_of_their_closed_forms(masked_letters: TaskChoice) -> None:
    """The arm in blocks would be held to another bound than the one end to end: blocks own equal parts of the time, and
    so an equal share of the bound each."""
    method = built(cell_on(masked_letters, "masked_blocks", NetworkChoice(name="masked", size="micro", depth=3)))
    assert isinstance(method, MaskedBlocks)
    tables = torch.tensor([[0.1, 0.7, 0.1, 0.1], [0.25, 0.25, 0.25, 0.25], [0.1, 0.1, 0.1, 0.7]]).log()
    method.outputs = lambda inputs, block: tables[block].expand(*inputs["tokens"].shape, 4)  # type: ignore[method-assign]
    figures = method.task.evaluate("test", method.predict)
    each = [bits_of_letters(method, table.exp()) for table in tables]
    assert max(each) - min(each) > 0.3
    for way, expected in {"": sum(each) / 3, "first_block": each[0]}.items():
        error = figures[way]["standard_error"]
        assert error < 0.03 * expected
        assert figures[way]["bits_per_character"] == pytest.approx(expected, abs=3 * error), way


EVERY_METHOD: dict[str, tuple[str, dict[str, Any]]] = {
    "backprop": ("backprop", {}),
    "checkpointing": ("checkpointing", {}),
    "greedy": ("greedy", {"ensemble": True}),
    "blocks": ("diffusion_blocks", {"blocks": 2, "shown_draws": [1, 3]}),
    "ngram": ("ngram", {"order": 3}),
    "blocks_two_pass": ("diffusion_blocks", {"blocks": 2, "streams": "two_pass", "inference_draws": 3}),
}


@pytest.mark.parametrize("name", EVERY_METHOD)
def test_every_way_of_predicting_sums_to_one_over_the_vocabulary(letters: TaskChoice, name: str) -> None:
    """A perplexity would compare scores that are no probabilities."""
    which, options = EVERY_METHOD[name]
    network = NetworkChoice(name="counts") if which == "ngram" else LLAMA
    cell = cell_on(letters, which, network, **options).model_copy(update={"optimizer": OptimizerChoice(lr=1e-2)})
    method = built(cell)
    loop = Loop(method, method.task, cell)
    plans = [plan for plan, _ in rehearsal(method)]
    for plan in plans:
        loop.step(plan)
    batch = next(iter(method.task.evaluation_batches("test")))
    with torch.no_grad():
        ways, own = method.predict(batch.inputs), method.predict_own(batch.inputs)
    for way, prediction in ways.items():
        assert prediction.shape == (*batch.targets.shape, 4)
        assert prediction.double().exp().sum(dim=-1).sub(1).abs().max() < 1e-5, way
    assert torch.equal(own, ways[""])


def test_a_limit_on_windows_takes_them_evenly_and_for_all_alike(letters: TaskChoice) -> None:
    """A method would be scored on other text than its neighbour, or all on the beginning alone."""
    task = built(cell_on(letters, "backprop")).task
    starts = torch.cat([batch.inputs[:, :4] for batch in task.evaluation_batches("test")])
    whole = resolve_cell(cell_on(letters.model_copy(update={"evaluation_windows": None}), "greedy"), "test").load_task()
    every = torch.cat([batch.inputs[:, :4] for batch in whole.evaluation_batches("test")])
    assert len(every) == (600 - 1) // LENGTH
    assert torch.equal(starts, every[[0, 7, 14, 22, 29]])
