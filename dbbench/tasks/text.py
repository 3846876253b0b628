"""Language modelling: every next token of a text from those before it, scored in bits per character.

The text is one stream of tokens a part. A training batch is windows of it, which in an epoch do not overlap; a part to
evaluate is read once from its beginning, window after window, each token predicted from those before it in its window.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from dbbench.data.plays import load_plays
from dbbench.data.text_folder import load_text_dataset, load_text_folder
from dbbench.data.text_set import TextSet
from dbbench.data.vocabulary import Units, make_vocabulary
from dbbench.errors import BadInput
from dbbench.limits import Classes, Count, SequenceLength, SomeTimes
from dbbench.networks import base as networks
from dbbench.networks.base import InputShape
from dbbench.streams import Streams
from dbbench.tasks.base import Batch, Document, Metric, Products, Split
from dbbench.tasks.next_token import NextToken
from dbbench.tasks.sampling import DECODINGS, continued, distinct, repetition

EVALUATION_TOKENS = 16_384  # a batch of an evaluation: its log-probabilities are this many times the vocabulary
PLAYS_CHARACTERS = 81

#: What is said of the texts that a model writes.
SAMPLE_METRICS = (
    Metric("distinct_1", "of 1-grams of words", "higher", 0, 1),
    Metric("distinct_2", "of 2-grams of words", "higher", 0, 1),
    Metric("repetition_4", "of 4-grams of tokens", "lower", 0, 1),
)


class TextOptions(networks.BaseOptions):
    """``sequence_length`` is a window's number of tokens; ``vocabulary_size`` that of byte pairs.

    ``evaluation_windows`` is the most windows of a split that are scored, spread evenly over it, the same for every
    method; None scores all. ``samples`` is how many windows of the last split a trained model writes on from their
    middle.
    """

    units: Units = "characters"
    vocabulary_size: Annotated[Classes, Field(ge=2)] = 4096
    sequence_length: Annotated[SequenceLength, Field(ge=2)] = 256
    validation_fraction: Annotated[float, Field(gt=0, lt=1, strict=False)] = 0.05
    evaluation_windows: Count | None = None
    samples: SomeTimes = 8


class Text(NextToken):
    """Shared by every text: its parts as tokens, windows in the order of a seed.

    ``bits_per_character`` divides by the characters of the text, so that it compares over vocabularies; ``perplexity``
    is the exponential of the mean over tokens, and compares within one.
    """

    Options: ClassVar[type[networks.BaseOptions]] = TextOptions
    loader: ClassVar[Callable[..., TextSet]]
    loader_options: ClassVar[tuple[str, ...]] = ("validation_fraction",)
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("bits_per_character", "bits", "lower", 0),
        Metric("perplexity", "per token", "lower", 1),
    )

    def __init__(self, options: networks.BaseOptions, streams: Streams, batch_size: int, where: str = "task") -> None:
        assert isinstance(options, TextOptions)
        text = self.load(options, where)
        self.name, self.streams, self.batch_size = text.name, streams, batch_size
        self.dataset_sha256 = text.sha256
        self.vocabulary = make_vocabulary(text, options.units, options.vocabulary_size, where)
        self.shape = self.input_shape(options)
        if self.vocabulary.size != self.shape.classes:
            raise BadInput(
                f"{where}: vocabulary_size: {self.shape.classes} is said, and the text has {self.vocabulary.size} "
                f"{options.units.replace('_', ' ')}"
            )
        self._characters_per_token = torch.from_numpy(self.vocabulary.characters_per_token).to(streams.device)
        self._length, self._most_windows = options.sequence_length, options.evaluation_windows
        self._samples = options.samples
        self._tokens = {part: self._encoded(text, part, where) for part in ("train", "validation", "test")}
        self._starts = lru_cache(maxsize=4)(self._shuffle)

    @classmethod
    def load(cls, options: networks.BaseOptions, where: str) -> TextSet:
        """Return the text. It raises BadInput when it is missing or damaged."""
        return cls.loader(where=where, **{name: getattr(options, name) for name in cls.loader_options})

    @classmethod
    def input_shape(cls, options: networks.BaseOptions) -> InputShape:
        assert isinstance(options, TextOptions)
        return InputShape(options.vocabulary_size, "tokens", sequence_length=options.sequence_length)

    def _encoded(self, text: TextSet, part: str, where: str) -> np.ndarray:
        tokens = self.vocabulary.encode(text.part(part))  # type: ignore[arg-type]
        if len(tokens) <= self._length:
            raise BadInput(f"{where}: sequence_length: {self._length}, and the {part} part has {len(tokens)} tokens")
        return tokens

    @property
    def batches_per_epoch(self) -> int:
        return max(1, (len(self._tokens["train"]) // self._length - 1) // self.batch_size)

    def _shuffle(self, epoch: int) -> np.ndarray:
        """Return where the windows of an epoch begin, in its order; the grid they lie on is drawn anew each time."""
        random = np.random.Generator(np.random.PCG64(self.streams.key("batches", epoch)))
        room = len(self._tokens["train"]) - 1  # the last token is a target alone
        offset = int(random.integers(min(self._length, room - self._length + 1)))
        starts = offset + self._length * np.arange((room - offset) // self._length)
        return random.permutation(starts)

    def train_batch(self, index: int) -> Batch:
        epoch, position = divmod(index, self.batches_per_epoch)
        starts = self._starts(epoch)[position * self.batch_size : (position + 1) * self.batch_size]
        return self._batch("train", np.resize(starts, self.batch_size))

    def evaluation_batches(self, split: Split) -> Iterator[Batch]:
        """Yield the windows of ``split`` in order, or as many of them as are asked for, evenly spread.

        The tokens behind its last whole window are left out.
        """
        starts = self._windows(split, self._most_windows)
        rows = max(1, EVALUATION_TOKENS // self._length)
        for first in range(0, len(starts), rows):
            yield self._batch(split, starts[first : first + rows])

    def _windows(self, split: Split, most: int | None) -> np.ndarray:
        """Return where the windows of ``split`` begin, all of them or ``most``, evenly spread."""
        starts = np.arange(0, len(self._tokens[split]) - self._length, self._length)
        if most is None or most >= len(starts):
            return starts
        return starts[np.arange(most) * len(starts) // most]

    def after_training(self, split: Split, predict: Callable[[Any], Tensor]) -> Products | None:
        """Write on windows of ``split`` from their middle to their end, beside what the text itself has there.

        A prompt is half a window, so that all of it and of what is written is seen at once.
        """
        if not self._samples:
            return None
        batch = self._batch(split, self._windows(split, self._samples))
        whole = torch.cat([batch.inputs, batch.targets[:, -1:]], dim=1)
        prompts = whole[:, : self._length // 2]
        with torch.no_grad():
            written = self.written(predict, prompts)
        ways = dict(zip((*DECODINGS, "held_out"), (*written, whole[:, : written.shape[-1]]), strict=True))
        documents, figures = [], {}
        for way, rows in ways.items():
            tokens = [row[self._length // 2 :] for row in rows]
            texts = [self._spelt(row) for row in tokens]
            documents += [Document(way, self._spelt(p), text) for p, text in zip(prompts, texts, strict=True)]
            found = {f"distinct_{n}": distinct(texts, n) for n in (1, 2)}
            found["repetition_4"] = repetition([row.tolist() for row in tokens], 4)
            figures[way] = {name: value for name, value in found.items() if value is not None}
        return Products(documents, SAMPLE_METRICS, figures)

    def written(self, predict: Callable[[Any], Tensor], prompts: Tensor) -> Tensor:
        """Return ``prompts`` [prompts, tokens] written on in each of `DECODINGS`, [decodings, prompts, more tokens]."""
        return continued(predict, prompts, self._length + 1, self.streams.generator("samples"))

    def _spelt(self, tokens: Tensor) -> str:
        return self.vocabulary.decode(tokens.cpu().numpy())

    def measure(self, prediction: Tensor, targets: Tensor) -> dict[str, float]:
        nats = F.nll_loss(prediction.flatten(0, 1), targets.flatten(), reduction="sum")
        characters = self._characters_per_token[targets].sum()
        return {"nats": nats.item(), "characters": characters.item(), "tokens": targets.numel()}

    def figures(self, sums: Mapping[str, float], samples: int) -> dict[str, float]:
        mean_nats = sums["nats"] / sums["tokens"]
        return {
            "bits_per_character": sums["nats"] / math.log(2) / sums["characters"],
            "perplexity": perplexity(mean_nats),
        }

    def _batch(self, part: str, starts: np.ndarray) -> Batch:
        windows = self._tokens[part][starts[:, None] + np.arange(self._length + 1)]
        tokens = torch.from_numpy(windows).to(self.streams.device)
        return Batch(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous())


def perplexity(nats: float) -> float:
    """Return exp(nats), infinity where that is more than a float holds."""
    return math.exp(nats) if nats < 700 else math.inf


class Plays(Text):
    """The embedded 38 plays of Shakespeare's, the last tenth of each held out."""

    loader = staticmethod(load_plays)

    @classmethod
    def input_shape(cls, options: networks.BaseOptions) -> InputShape:
        assert isinstance(options, TextOptions)
        size = PLAYS_CHARACTERS if options.units == "characters" else options.vocabulary_size
        return InputShape(size, "tokens", sequence_length=options.sequence_length)


class TextFolder(Text):
    """A local folder of ``.txt`` files; of characters ``vocabulary_size`` says how many kinds there are."""

    class Options(TextOptions):
        folder: str | None = None
        test_fraction: Annotated[float, Field(gt=0, lt=1, strict=False)] = 0.1

    loader = staticmethod(load_text_folder)
    loader_options = ("folder", "test_fraction", "validation_fraction")


class TextDataset(Text):
    """A local corpus of the library `datasets`, such as LM1B, OpenWebText or text8."""

    class Options(TextOptions):
        folder: str | None = None
        column: str = "text"
        train_split: str = "train"
        test_split: str = "test"

    loader = staticmethod(load_text_dataset)
    loader_options = ("folder", "column", "train_split", "test_split", "validation_fraction")
