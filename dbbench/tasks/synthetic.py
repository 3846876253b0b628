"""Inputs of any size drawn from a seed, for what does not depend on their content: memory, FLOPs, time.

A suite at the scale of a paper needs no data set this way. There is nothing to learn beyond the inputs' statistics, so
a metric on these tasks says that training runs, and no more.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from dbbench.diffusion.noise import NoiseLaw
from dbbench.diffusion.precondition import precondition
from dbbench.limits import Classes, Pixels, SequenceLength
from dbbench.networks import base as networks
from dbbench.networks.base import InputShape
from dbbench.streams import Streams
from dbbench.tasks.base import Batch, Metric, Split, Task
from dbbench.tasks.classification import Classification
from dbbench.tasks.masks import UnderMasks
from dbbench.tasks.next_token import NextToken

EVALUATION_BATCHES = 2


class Synthetic(Task):
    """Draws batch number i from the stream of its number; evaluation splits are two batches of streams of their own."""

    def __init__(self, options: networks.BaseOptions, streams: Streams, batch_size: int, where: str = "task") -> None:
        self.options, self.streams, self.batch_size = options, streams, batch_size
        self.shape = self.input_shape(options)
        described = f"{type(self).__name__} {options.model_dump_json()}"
        self.dataset_sha256 = hashlib.sha256(described.encode()).hexdigest()

    def train_batch(self, index: int) -> Batch:
        return self._draw(self.streams.generator("synthetic", "train", index))

    def evaluation_batches(self, split: Split) -> Iterator[Batch]:
        for index in range(EVALUATION_BATCHES):
            yield self._draw(self.streams.generator("synthetic", split, index))

    @abstractmethod
    def _draw(self, generator: torch.Generator) -> Batch:
        """Return a batch."""

    def _integers(self, high: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return torch.randint(high, shape, generator=generator, device=generator.device)


class SyntheticImages(Synthetic, Classification):
    """Random images with random classes, 224 × 224 of 1,000 classes as ImageNet is usually trained on."""

    class Options(networks.BaseOptions):
        classes: Classes = 1000
        channels: Pixels = 3
        image_size: Pixels = 224

    options: Options
    name = "images"

    @classmethod
    def input_shape(cls, options: networks.BaseOptions) -> InputShape:
        assert isinstance(options, cls.Options)
        return InputShape(classes=options.classes, channels=options.channels, image_size=options.image_size)

    def _draw(self, generator: torch.Generator) -> Batch:
        o = self.options
        shape = (self.batch_size, o.channels, o.image_size, o.image_size)
        images = torch.randn(shape, generator=generator, device=generator.device)
        return Batch(images, self._integers(o.classes, (self.batch_size,), generator))


class Tokens(Synthetic, NextToken):
    """Random tokens, each to be predicted from those before it; Llama's 32,000 and a length of 2,048 by default."""

    class Options(networks.BaseOptions):
        vocabulary: Classes = 32_000
        sequence_length: SequenceLength = 2048

    options: Options
    name = "tokens"

    @classmethod
    def input_shape(cls, options: networks.BaseOptions) -> InputShape:
        assert isinstance(options, cls.Options)
        return InputShape(options.vocabulary, "tokens", sequence_length=options.sequence_length)

    def _draw(self, generator: torch.Generator) -> Batch:
        o = self.options
        text = self._integers(o.vocabulary, (self.batch_size, o.sequence_length + 1), generator)
        return Batch(text[:, :-1], text[:, 1:])


class MaskedTokens(UnderMasks, Synthetic):
    """Random tokens under masks (`dbbench.tasks.masked_text`); the letters and the length of MD4's text8 by default.

    The bound is of one time and one mask a sample, and of no text that anybody wrote.
    """

    class Options(networks.BaseOptions):
        vocabulary: Classes = 27
        sequence_length: SequenceLength = 256

    options: Options
    name = "masked_tokens"
    metrics: ClassVar[tuple[Metric, ...]] = (Metric("bound", "nats", "lower", 0),)

    @classmethod
    def input_shape(cls, options: networks.BaseOptions) -> InputShape:
        assert isinstance(options, cls.Options)
        return InputShape(options.vocabulary, "masked_tokens", sequence_length=options.sequence_length)

    def _draw(self, generator: torch.Generator) -> Batch:
        o = self.options
        tokens = self._integers(o.vocabulary, (self.batch_size, o.sequence_length), generator)
        return self.masked_at_random(tokens, generator)

    def measure(self, prediction: Tensor, targets: Any) -> dict[str, float]:
        return {"bound": self.integrand(prediction, targets).sum().item()}


class Latents(Synthetic):
    """Random latents with random classes, to be denoised under EDM's noise law (Karras et al. 2022, table 1).

    The default is a 256 × 256 image behind the autoencoder that DiT uses: 4 channels of 32 × 32, 1,000 classes, and the
    label left out for a tenth of the samples, as classifier-free guidance needs it. A network F is trained on
    (y − c_skip·z)/c_out at weight one, which is EDM's loss w(σ)·|D − y|² with D = c_skip·z + c_out·F (their eq. 8).
    """

    class Options(networks.BaseOptions):
        classes: Classes = 1000
        channels: Pixels = 4
        size: Pixels = 32
        label_dropout: Annotated[float, Field(ge=0, le=1, strict=False)] = 0.1

    SIGMA_DATA: ClassVar[float] = 0.5
    options: Options
    name = "latents"
    predicts = "values"
    metrics: ClassVar[tuple[Metric, ...]] = (Metric("denoising_error", "weighted square", "lower", 0),)

    @classmethod
    def input_shape(cls, options: networks.BaseOptions) -> InputShape:
        assert isinstance(options, cls.Options)
        return InputShape(options.classes, "latents", options.channels, options.size)

    def _draw(self, generator: torch.Generator) -> Batch:
        o, count, law = self.options, self.batch_size, NoiseLaw()
        shape = (count, o.channels, o.size, o.size)
        clean = self.SIGMA_DATA * torch.randn(shape, generator=generator, device=generator.device)
        left_out = torch.rand(count, generator=generator, device=generator.device) < o.label_dropout
        label = self._integers(o.classes, (count,), generator).masked_fill_(left_out, o.classes)
        sigma = law.sample((law.sigma_min, law.sigma_max), count, generator)
        noise = torch.randn(shape, generator=generator, device=generator.device)
        return self.noised(clean, label, sigma, noise)

    def noised(self, clean: Tensor, label: Tensor, sigma: Tensor, noise: Tensor) -> Batch:
        """Return the batch of ``clean`` [batch, …] at noise levels ``sigma`` [batch]."""
        column = sigma.view(-1, 1, 1, 1)
        c = precondition(column, self.SIGMA_DATA)
        z = clean + column * noise
        inputs = {"noisy": c.c_in * z, "c_noise": c.c_noise.flatten(), "label": label}
        return Batch(inputs, (clean - c.c_skip * z) / c.c_out, clean)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs.float() - targets).square().flatten(1).mean(dim=1)

    def measure(self, prediction: Tensor, targets: Tensor) -> dict[str, float]:
        return {"denoising_error": self.loss(prediction, targets).sum().item()}
