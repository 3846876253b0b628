"""Language modelling: windows that do not leak, an order of batches, and figures with a closed form."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dbbench.errors import BadInput
from dbbench.streams import Streams
from dbbench.tasks.text import Plays, Text, TextFolder, TextOptions


def plays(seed: int = 0, batch_size: int = 4, **options: object) -> Plays:
    """Return the embedded task."""
    return Plays(TextOptions(**options), Streams(seed), batch_size)


def folder_of(tmp_path: Path, text: str, **options: object) -> TextFolder:
    """Return a task on one file."""
    (tmp_path / "text.txt").write_text(text)
    return TextFolder(TextFolder.Options(folder=str(tmp_path), **options), Streams(0), 2)


def spelt(task: Text, tokens: Tensor) -> str:
    """Return the text of a window."""
    return task.vocabulary.decode(tokens.numpy())


def test_targets_are_the_next_tokens_of_the_training_part() -> None:
    """Another thing than the next character would be learnt, or held-out text be seen."""
    task = plays(sequence_length=64)
    train = task.load(TextOptions(), "test").part("train")
    for index in (0, 1, 5):
        batch = task.train_batch(index)
        assert torch.equal(batch.inputs[:, 1:], batch.targets[:, :-1])
        for row in range(4):
            assert spelt(task, batch.inputs[row]) + spelt(task, batch.targets[row, -1:]) in train


def test_an_epoch_sees_every_window_once(tmp_path: Path) -> None:
    """Some text would be seen twice before other text is seen at all."""
    letters = "".join(chr(0x4E00 + i) for i in range(400))  # each character tells its place
    size = len(set(letters)) + 1
    task = folder_of(tmp_path, letters, sequence_length=10, vocabulary_size=size)
    for epoch in (0, 1):
        first = epoch * task.batches_per_epoch
        inputs = torch.cat([task.train_batch(first + i).inputs for i in range(task.batches_per_epoch)])
        assert len(set(inputs.flatten().tolist())) == inputs.numel()
        assert inputs.numel() > 0.85 * 342 - 20
    assert not torch.equal(task.train_batch(0).inputs, task.train_batch(task.batches_per_epoch).inputs)


def test_a_held_out_part_is_read_once_in_order(tmp_path: Path) -> None:
    """Tokens would count twice in a perplexity, or not at all."""
    task = folder_of(tmp_path, "abcdefghij" * 100, sequence_length=7, vocabulary_size=11)
    targets = torch.cat([batch.targets.flatten() for batch in task.evaluation_batches("test")])
    test = task.load(task.Options(folder=str(tmp_path)), "test").part("test")
    assert spelt(task, targets) == test[1 : 1 + 7 * ((len(test) - 1) // 7)]


def test_batches_follow_the_seed_alone() -> None:
    """Methods of a suite would see different text."""
    one, same, other = plays(0), plays(0), plays(1)
    assert torch.equal(one.train_batch(7).inputs, same.train_batch(7).inputs)
    assert not torch.equal(one.train_batch(7).inputs, other.train_batch(7).inputs)
    assert one.dataset_sha256 == other.dataset_sha256


def test_a_bigram_table_scores_its_closed_form(tmp_path: Path) -> None:
    """Bits per character would not be the cross-entropy of the text under the model."""
    generator = np.random.Generator(np.random.PCG64(0))
    text = "".join(generator.choice(list("abc"), 4000, p=[0.5, 0.3, 0.2]))
    task = folder_of(tmp_path, text, sequence_length=16, vocabulary_size=4)
    table = torch.rand(4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    table /= table.sum(dim=1, keepdim=True)
    figures = task.evaluate("test", lambda inputs: {"": table[inputs].log()})[""]
    tokens = task.vocabulary.encode(task.load(task.Options(folder=str(tmp_path)), "test").part("test"))
    count = 16 * ((len(tokens) - 1) // 16)
    nats = -np.log(table.numpy()[tokens[:count], tokens[1 : count + 1]]).mean()
    assert figures["bits_per_character"] == pytest.approx(nats / math.log(2), rel=1e-12)
    assert figures["perplexity"] == pytest.approx(math.exp(nats), rel=1e-12)


def test_bits_per_character_are_per_character_whatever_the_units(tmp_path: Path) -> None:
    """A larger vocabulary would look better for its size alone."""
    text = "the cat sat on the mat, the hat and the bat.\n" * 400
    task = folder_of(tmp_path, text, units="byte_pairs", vocabulary_size=268, sequence_length=32)
    assert task.shape.classes == 268
    uniform = torch.full((1, 1, 268), -math.log(268))
    figures = task.evaluate("test", lambda inputs: {"": uniform.expand(*inputs.shape, 268)})[""]
    targets = torch.cat([batch.targets.flatten() for batch in task.evaluation_batches("test")])
    characters = len(task.vocabulary.decode(targets.numpy()))
    assert characters > 1.2 * len(targets)
    assert figures["bits_per_character"] == pytest.approx(len(targets) * math.log2(268) / characters, rel=1e-5)
    assert figures["perplexity"] == pytest.approx(268, rel=1e-4)


def test_smoothed_ngrams_score_what_was_published_of_the_text() -> None:
    """The text, its cut or the score would be another: orders 0, 1, 2 and 4 have 4.82, 3.63, 2.88 and 2.13 bits."""
    task = plays()
    train, test = (task._tokens[part] for part in ("train", "test"))
    bits = {order: witten_bell_bits(train, test, order, 81) for order in (0, 1, 2, 4)}
    for order, published in {0: 4.82, 1: 3.63, 2: 2.88, 4: 2.13}.items():
        assert bits[order] == pytest.approx(published, abs=0.06)


def witten_bell_bits(train: np.ndarray, test: np.ndarray, order: int, size: int) -> float:
    """Return the bits a token of ``test`` under n-grams of ``train``, interpolated after Witten and Bell (1991)."""
    p = np.full(len(test) - order, 1 / size)
    for k in range(order + 1):
        seen, asked = (_contexts(tokens, k, size) for tokens in (train, test))
        asked = asked[order - k :]
        pairs, counts = np.unique(seen * size + train[k:], return_counts=True)
        contexts, totals = np.unique(seen, return_counts=True)
        kinds = np.unique(pairs // size, return_counts=True)[1]
        place = np.minimum(np.searchsorted(contexts, asked), len(contexts) - 1)
        known = contexts[place] == asked
        wanted = asked * size + test[order:]
        at = np.minimum(np.searchsorted(pairs, wanted), len(pairs) - 1)
        count = np.where(pairs[at] == wanted, counts[at], 0)
        total, kind = np.where(known, totals[place], 0), np.where(known, kinds[place], 0)
        p = np.where(known, (count + kind * p) / np.maximum(total + kind, 1), p)
    return float(-np.log2(p).mean())


def _contexts(tokens: np.ndarray, k: int, size: int) -> np.ndarray:
    """Return the k tokens before each token from the k-th on, as one number."""
    found = np.zeros(len(tokens) - k, dtype=np.int64)
    for place in range(k):
        found = found * size + tokens[place : len(tokens) - k + place]
    return found


def test_a_text_too_short_or_a_wrong_vocabulary_is_refused(tmp_path: Path) -> None:
    """A traceback deep in a batch, or a head with too many outputs."""
    with pytest.raises(BadInput, match="sequence_length: 256, and the validation part has"):
        folder_of(tmp_path, "abc" * 1000, vocabulary_size=4)
    with pytest.raises(BadInput, match="vocabulary_size: 4096 is said, and the text has 4 characters"):
        folder_of(tmp_path, "abc" * 10_000)
