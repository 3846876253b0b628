"""Image classification: small real data sets, cross-entropy, accuracy.

The validation split comes out of the training part, the same for every seed and method; the test split is read once,
at the end of a cell.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field

from dbbench import data
from dbbench.data.augment import augment
from dbbench.errors import BadInput
from dbbench.limits import Classes, Pixels
from dbbench.networks import base as networks
from dbbench.networks.base import InputShape
from dbbench.streams import Streams
from dbbench.tasks.base import Batch, Split
from dbbench.tasks.classification import Classification

EVALUATION_BATCH_SIZE = 250


class ImageOptions(networks.BaseOptions):
    """Options of every image task: a local ``folder`` where the data set needs one, and the augmentation."""

    folder: str | None = None
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    augment: Literal["none", "crop_flip", "rand_augment"] = "none"


class ImageClassification(Classification):
    """Shared by every set of images: batches are float32 [batch, channels, height, width], standardised."""

    Options: ClassVar[type[networks.BaseOptions]] = ImageOptions
    data_set: ClassVar[str]
    fixed_shape: ClassVar[InputShape]
    loader_options: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def input_shape(cls, options: networks.BaseOptions) -> InputShape:
        return cls.fixed_shape

    def __init__(self, options: networks.BaseOptions, streams: Streams, batch_size: int, where: str = "task") -> None:
        assert isinstance(options, ImageOptions)
        extra = {name: getattr(options, name) for name in self.loader_options}
        images = data.load_images(self.data_set, folder=options.folder, where=where, **extra)
        self.name, self.dataset_sha256, self.streams = self.data_set, images.sha256, streams
        self.batch_size, self.augmentation = batch_size, options.augment
        train, validation = data.split_validation(images.train_labels, options.validation_fraction, seed=0)
        _, height, _, channels = images.train_images.shape
        self.shape = InputShape(classes=len(images.classes), channels=channels, image_size=height)
        if self.shape != self.input_shape(options):
            raise BadInput(f"{where}: the data are {self.shape}, the suite says {self.input_shape(options)}")
        # the sets stay numpy arrays, so that only a batch is ever a tensor
        self._train = (images.train_images[train], images.train_labels[train])
        self._splits = {
            "validation": (images.train_images[validation], images.train_labels[validation]),
            "test": (images.test_images, images.test_labels),
        }
        pixels = self._train[0].reshape(-1, channels) / 255.0
        self._mean, self._std = pixels.mean(axis=0), pixels.std(axis=0) + 1e-8
        self._epoch_order = lru_cache(maxsize=8)(self._shuffle)

    @property
    def batches_per_epoch(self) -> int:
        return max(1, len(self._train[1]) // self.batch_size)

    def _shuffle(self, epoch: int) -> np.ndarray:
        key = self.streams.key("batches", epoch)
        return np.random.Generator(np.random.PCG64(key)).permutation(len(self._train[1]))

    def train_batch(self, index: int) -> Batch:
        epoch, position = divmod(index, self.batches_per_epoch)
        rows = self._epoch_order(epoch)[position * self.batch_size : (position + 1) * self.batch_size]
        return self._batch(self._train[0][rows], self._train[1][rows], self.streams.generator("augment", index))

    def evaluation_batches(self, split: Split) -> Iterator[Batch]:
        images, labels = self._splits[split]
        for start in range(0, len(labels), EVALUATION_BATCH_SIZE):
            rows = slice(start, start + EVALUATION_BATCH_SIZE)
            yield self._batch(images[rows], labels[rows], None)

    def _batch(self, images: np.ndarray, labels: np.ndarray, generator: torch.Generator | None) -> Batch:
        device = self.streams.device
        pixels = torch.from_numpy(images).to(device).permute(0, 3, 1, 2)
        if generator is not None and self.augmentation != "none":
            pixels = augment(self.augmentation, pixels, generator)
        inputs = pixels.to(torch.float32, memory_format=torch.contiguous_format).div_(255.0)
        for channel, (mean, std) in enumerate(zip(self._mean, self._std, strict=True)):
            inputs[:, channel].sub_(float(mean)).div_(float(std))
        return Batch(inputs, torch.from_numpy(labels).to(device, copy=True))


class Digits(ImageClassification):
    """scikit-learn's 1,797 handwritten digits of 8 × 8 pixels, for tests."""

    data_set = "digits"
    fixed_shape = InputShape(classes=10, channels=1, image_size=8)


class FashionMnist10k(ImageClassification):
    """The embedded slice of Fashion-MNIST: 10,000 training and 2,000 test images of 28 × 28 pixels."""

    data_set = "fashion_mnist_10k"
    fixed_shape = InputShape(classes=10, channels=1, image_size=28)


class FashionMnist(ImageClassification):
    """The whole Fashion-MNIST (60,000 and 10,000 images), from Debian's package or a folder of its idx files."""

    data_set = "fashion_mnist"
    fixed_shape = InputShape(classes=10, channels=1, image_size=28)


class Cifar10(ImageClassification):
    """CIFAR-10 from a local folder of its binary files."""

    data_set = "cifar10"
    fixed_shape = InputShape(classes=10, channels=3, image_size=32)


class Cifar100(ImageClassification):
    """CIFAR-100 from a local folder of its binary files."""

    data_set = "cifar100"
    fixed_shape = InputShape(classes=100, channels=3, image_size=32)


class ImageDataset(ImageClassification):
    """A local data set of the `datasets` library; its shape and number of classes are options."""

    class Options(ImageOptions):
        classes: Classes
        channels: Pixels = 3
        image_size: Pixels
        image_column: str = "image"
        label_column: str = "label"
        train_split: str = "train"
        test_split: str = "test"

    data_set = "image_dataset"
    loader_options = ("image_column", "label_column", "train_split", "test_split")

    @classmethod
    def input_shape(cls, options: networks.BaseOptions) -> InputShape:
        assert isinstance(options, cls.Options)
        return InputShape(classes=options.classes, channels=options.channels, image_size=options.image_size)
