"""Masked diffusion of text: what is masked and how it is weighted, and a bound with a closed form."""

from __future__ import annotations

import math
from collections import Counter
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dbbench.streams import Streams
from dbbench.tasks.masked_text import MaskedTextFolder
from dbbench.tasks.masks import FIRST_TIME, spread

LETTERS, LENGTH = "abcd", 16
Inputs = dict[str, Tensor]


def task_on(tmp_path: Path, text: str | None = None, seed: int = 0, **options: object) -> MaskedTextFolder:
    """Return the task on one file, of letters that do not depend on each other unless ``text`` is given."""
    random = np.random.Generator(np.random.PCG64(0))
    drawn = "".join(random.choice(list(LETTERS), 20_000, p=[0.55, 0.25, 0.15, 0.05]))
    (tmp_path / "text.txt").write_text(text or drawn)
    settings = {"sequence_length": LENGTH, "vocabulary_size": 5} | options  # the fifth is the separator's newline
    return MaskedTextFolder(MaskedTextFolder.Options(folder=str(tmp_path), **settings), Streams(seed), 8)


def read(task: MaskedTextFolder) -> Tensor:
    """Return the tokens of the test part's windows, each window once."""
    return torch.cat([batch.clean[:: task.draws] for batch in task.evaluation_batches("test")])


def unigram(tokens: Tensor) -> Tensor:
    """Return log-probabilities [5] that are the frequencies in ``tokens``."""
    return (torch.bincount(tokens.flatten(), minlength=5).double() / tokens.numel()).clamp(min=1e-12).log()


def test_a_masked_token_is_hidden_and_another_is_not(tmp_path: Path) -> None:
    """The network would see what it is to predict, or be scored on what it sees."""
    task = task_on(tmp_path)
    batch = task.train_batch(3)
    tokens, masked = batch.targets["tokens"], batch.targets["masked"]
    assert batch.samples == 8
    assert 0 < masked.sum() < masked.numel()
    assert torch.equal(batch.inputs["tokens"][masked], torch.full((int(masked.sum()),), task.shape.classes))
    assert torch.equal(batch.inputs["tokens"][~masked], tokens[~masked])
    outputs = torch.randn(8, LENGTH, 5, generator=torch.Generator().manual_seed(0))
    changed = torch.where(masked[..., None], outputs, outputs.flip(-1))
    assert torch.equal(task.loss(outputs, batch.targets), task.loss(changed, batch.targets))


def test_times_and_masks_follow_seed_and_index_and_the_masked_part_is_t(tmp_path: Path) -> None:
    """Methods would see different masks, or a time would not be the chance to be masked that the weight is for."""
    task, other = task_on(tmp_path), task_on(tmp_path, seed=1)
    assert torch.equal(task.train_batch(2).inputs["tokens"], task_on(tmp_path).train_batch(2).inputs["tokens"])
    assert not torch.equal(task.train_batch(2).inputs["t"], other.train_batch(2).inputs["t"])
    batches = [task.train_batch(index) for index in range(400)]
    t = torch.cat([batch.inputs["t"] for batch in batches])
    parts = torch.cat([batch.targets["masked"].float().mean(dim=1) for batch in batches])
    assert float(t.min()) >= FIRST_TIME and float(t.max()) <= 1.0
    assert torch.allclose(torch.cat([batch.targets["weight"] for batch in batches]), 1 / t)
    for low in np.arange(0.0, 1.0, 0.25):
        near = (t >= low) & (t < low + 0.25)
        assert near.float().mean().item() == pytest.approx(0.25, abs=0.01)
        assert parts[near].mean().item() == pytest.approx(t[near].mean().item(), abs=0.02)


def test_spread_times_are_one_to_each_equal_part() -> None:
    """A batch would be of times by chance, and a gradient noisier than its batch needs to be."""
    times = spread(8, (0.5, 0.9), torch.Generator().manual_seed(0)).sort().values
    assert torch.allclose(times.diff(), torch.full((7,), 0.05), atol=1e-6)
    assert times[0] >= 0.5 and times[-1] < 0.9


@pytest.mark.parametrize("windows", [None, 20])
def test_an_evaluation_has_a_time_in_each_equal_part_and_is_the_same_for_every_seed(
    tmp_path: Path, windows: int | None
) -> None:
    """The bound would be of some times more than of others, or arms and seeds be scored under different masks."""
    task, other = (task_on(tmp_path, seed=seed, evaluation_windows=windows) for seed in (0, 1))
    batches = list(task.evaluation_batches("test"))
    t = torch.cat([batch.inputs["t"] for batch in batches])
    assert len(t) == 2 * len(read(task)) == sum(batch.samples for batch in batches)
    assert torch.equal((t.sort().values * len(t)).floor(), torch.arange(len(t)).float())
    for batch, twin in zip(batches, other.evaluation_batches("test"), strict=True):
        assert torch.equal(batch.inputs["tokens"], twin.inputs["tokens"])


def test_the_bound_of_a_unigram_table_is_the_entropy_of_its_letters(tmp_path: Path) -> None:
    """The weight, the masks or the count of characters would be off: where letters do not depend on each other, the
    bound of their true distribution is tight, and equals their entropy in closed form."""
    task = task_on(tmp_path, evaluation_draws=64)
    tokens = read(task)
    table = unigram(tokens)
    counts = Counter(tokens.flatten().tolist())
    entropy = -sum(n / tokens.numel() * math.log2(n / tokens.numel()) for n in counts.values())
    figures = task.evaluate("test", lambda inputs: {"": table.expand(*inputs["tokens"].shape, 5)})[""]
    assert 0 < figures["standard_error"] < 0.02 * entropy
    assert figures["bits_per_character"] == pytest.approx(entropy, abs=3 * figures["standard_error"])
    assert math.log2(figures["perplexity"]) == pytest.approx(figures["bits_per_character"], rel=1e-6)


def test_the_bound_of_a_pair_is_its_integral_over_time(tmp_path: Path) -> None:
    """The sum would not be the evidence bound: of two letters of which the second repeats the first, a model that
    knows it pays for a letter where both are masked and for none where one is: ∫ 1/t · t²·2·ln 2 dt = ln 2 a pair."""
    task = task_on(tmp_path, "aabbbbaabbaa" * 400, sequence_length=2, vocabulary_size=3, evaluation_draws=32)

    def predict(inputs: Inputs) -> dict[str, Tensor]:
        tokens, mask = inputs["tokens"], task.shape.classes
        chances = torch.zeros(*tokens.shape, 3, dtype=torch.float64)
        letters = [i for i in range(3) if task.vocabulary.decode(np.array([i])) in "ab"]
        for row, position in product(range(len(tokens)), range(2)):
            other = int(tokens[row, 1 - position])
            for letter in letters:
                chances[row, position, letter] = 0.5 if other == mask else float(letter == other)
        return {"": chances.clamp(min=1e-12).log()}

    assert all(row[0] == row[1] for row in read(task))
    figures = task.evaluate("test", predict)[""]
    assert figures["bits_per_character"] == pytest.approx(0.5, abs=3 * figures["standard_error"])
    assert figures["standard_error"] < 0.02


def test_the_standard_error_is_that_of_the_windows(tmp_path: Path) -> None:
    """A reader would take noise for a difference: the error must be what repeats of the evaluation scatter by, or more
    where windows differ."""
    task = task_on(tmp_path, evaluation_draws=1)
    table = unigram(read(task))
    sums: list[dict[str, float]] = []
    for number, (clean, generator) in enumerate((read(task), torch.Generator().manual_seed(i)) for i in range(200)):
        t = torch.rand(len(clean), generator=generator).clamp(min=1e-3)
        batch = task.masked(clean, t, torch.rand(clean.shape, generator=generator))
        sums.append(task.figures(task.measure(table.expand(*clean.shape, 5), batch.targets), number))
    found = np.std([figures["bits_per_character"] for figures in sums])
    stated = np.mean([figures["standard_error"] for figures in sums])
    assert found <= 1.1 * stated
    assert stated < 2 * found
