"""Masked diffusion of text: every masked token from all that are not, scored by a bound in bits per character.

MD4 (Shi et al. 2024, arXiv 2406.04329, section 2 and the continuous-time objective of section 3, its eqs. 4 and 5). A
token of the text x is masked by the time t, independently of the others, with probability 1 − α_t; here the schedule is
the linear one, α_t = 1 − t. The negative evidence lower bound of a text of L tokens is

    −log p(x) ≤ ∫₀¹ −α′_t/(1 − α_t) · E[ Σ_{i masked} −log p_i(x_i | what is not masked, t) ] dt

and with this schedule the weight −α′_t/(1 − α_t) is 1/t: a sample's loss is the sum over its masked tokens, times 1/t,
over L, whose mean over t ~ U(0, 1) is the bound in nats a token. For one t and one mask drawn, so much as is masked
is weighted to stand for all of the text.

In training t is drawn as MD4 does: one number for a batch, whose samples are spread evenly from it over (0.001, 1). An
evaluation is the same for every method and seed: each window is read at `evaluation_draws` times, which over the split
are stratified on (0, 1), under masks from a fixed stream. Its standard error counts the windows as independent draws,
so that it holds how much they differ as well; that of the masks alone is smaller.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from dbbench.limits import Times
from dbbench.networks import base as networks
from dbbench.networks.base import InputShape
from dbbench.streams import Streams
from dbbench.tasks.base import Batch, Metric, Split
from dbbench.tasks.masks import UnderMasks, uniform_for
from dbbench.tasks.sampling import unmasked
from dbbench.tasks.text import Plays, Text, TextDataset, TextFolder, TextOptions, perplexity

LEAST_TIME = 1e-6  # an evaluation's, where 1/t must be finite


class MaskedText(UnderMasks, Text):
    """A text under masks. Mixed into a `Text` that says where the text comes from.

    ``bits_per_character`` is the bound, ``standard_error`` that of its estimate (not a figure of merit), ``perplexity``
    the exponential of the bound a token.
    """

    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("bits_per_character", "bits, an upper bound", "lower", 0),
        Metric("standard_error", "bits", "lower", 0),
        Metric("perplexity", "per token, an upper bound", "lower", 1),
    )
    causal: ClassVar[bool] = False  # what is masked is told by both its sides

    def __init__(self, options: networks.BaseOptions, streams: Streams, batch_size: int, where: str = "task") -> None:
        super().__init__(options, streams, batch_size, where)
        assert isinstance(options, MaskedOptions)
        self.draws, self._steps = options.evaluation_draws, options.sample_steps

    @classmethod
    def input_shape(cls, options: networks.BaseOptions) -> InputShape:
        return replace(super().input_shape(options), kind="masked_tokens")

    def train_batch(self, index: int) -> Batch:
        return self.masked_at_random(super().train_batch(index).inputs, self.streams.generator("masks", index))

    def evaluation_batches(self, split: Split) -> Iterator[Batch]:
        """Yield the windows of ``split`` in order, each ``evaluation_draws`` times behind one another."""
        fixed = Streams(0, self.streams.device)
        times = self._times(split)
        first = 0
        for number, batch in enumerate(super().evaluation_batches(split)):
            tokens = batch.inputs.repeat_interleave(self.draws, dim=0)
            t = times[first : first + len(tokens)]
            first += len(tokens)
            yield self.masked(tokens, t, uniform_for(tokens, fixed.generator("evaluation_masks", split, number)))

    def _times(self, split: Split) -> Tensor:
        """Return a time for each draw of each window of ``split``: in each of so many equal parts of (0, 1) lies one,
        and a window's own are as far apart as can be."""
        windows = len(self._windows(split, self._most_windows))
        random = np.random.Generator(np.random.PCG64(Streams(0).key("evaluation_times", split)))
        place = (random.permutation(windows) + random.random(windows)) / windows
        times = (place[:, None] + np.arange(self.draws)) / self.draws
        return torch.from_numpy(times.ravel()).float().clamp(min=LEAST_TIME).to(self.streams.device)

    def written(self, predict: Callable[[Any], Tensor], prompts: Tensor) -> Tensor:
        steps = self._steps or self._length - prompts.shape[1]
        generator = self.streams.generator("samples")
        return unmasked(predict, prompts, self._length, self.shape.classes, steps, generator)

    def measure(self, prediction: Tensor, targets: Any) -> dict[str, float]:
        nats = self.integrand(prediction, targets).double().view(-1, self.draws).mean(dim=1)
        windows = targets["tokens"][:: self.draws]
        return {
            "nats_per_token": nats.sum().item(),
            "squares": nats.square().sum().item(),
            "windows": len(nats),
            "characters": self._characters_per_token[windows].sum().item(),
            "tokens": windows.numel(),
        }

    def figures(self, sums: Mapping[str, float], samples: int) -> dict[str, float]:
        windows = sums["windows"]
        nats = sums["nats_per_token"] / windows
        variance = max(0.0, sums["squares"] / windows - nats**2) * windows / max(1, windows - 1)
        bits_per_nat = sums["tokens"] / sums["characters"] / math.log(2)  # nats a token, bits a character
        return {
            "bits_per_character": nats * bits_per_nat,
            "standard_error": math.sqrt(variance / windows) * bits_per_nat,
            "perplexity": perplexity(nats),
        }


class MaskedOptions(networks.BaseOptions):
    """``evaluation_draws`` is how many times a window is read in an evaluation.

    ``sample_steps`` is how many steps a sample takes, and None as many as it has tokens to write: one call of the
    network for each, which is what the next-token task makes.
    """

    evaluation_draws: Times = 2
    sample_steps: Times | None = None


class MaskedPlays(MaskedText, Plays):
    """The embedded plays under masks."""

    class Options(TextOptions, MaskedOptions):
        pass


class MaskedTextFolder(MaskedText, TextFolder):
    """A local folder of text under masks."""

    class Options(TextFolder.Options, MaskedOptions):
        pass


class MaskedTextDataset(MaskedText, TextDataset):
    """A local corpus of the library `datasets` under masks."""

    class Options(TextDataset.Options, MaskedOptions):
        pass
