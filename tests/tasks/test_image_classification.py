"""Image tasks: splits that never meet, batches in a fixed order, and figures that scikit-learn agrees with."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn import datasets as sklearn_datasets
from sklearn import metrics as sklearn_metrics

from dbbench.errors import BadInput
from dbbench.streams import Streams
from dbbench.tasks.base import Batch
from dbbench.tasks.image_classification import Digits, FashionMnist10k, ImageClassification, ImageDataset, ImageOptions


def digits(seed: int = 0, batch_size: int = 16, **options: object) -> Digits:
    """Return the digits task."""
    return Digits(ImageOptions(**options), Streams(seed), batch_size)


def keys(images: torch.Tensor) -> list[bytes]:
    """Return each image's bytes, to recognise it by."""
    return [image.numpy().tobytes() for image in images]


def drawn(task: ImageClassification, epoch: int = 0) -> list[bytes]:
    """Return the images of an epoch in order."""
    start = epoch * task.batches_per_epoch
    return [key for i in range(task.batches_per_epoch) for key in keys(task.train_batch(start + i).inputs)]


def split(task: ImageClassification, name: str) -> list[Batch]:
    """Return the batches of an evaluation split."""
    return list(task.evaluation_batches(name))  # type: ignore[arg-type]


@pytest.mark.parametrize("cls", [Digits, FashionMnist10k])
def test_the_splits_share_no_sample(cls: type[ImageClassification]) -> None:
    """The choice of options would have seen the test, or the network its validation set."""
    task = cls(ImageOptions(), Streams(0), 1)
    train = set(drawn(task) if cls is Digits else keys(task._batch(*task._train, None).inputs))
    validation = {key for batch in split(task, "validation") for key in keys(batch.inputs)}
    test = {key for batch in split(task, "test") for key in keys(batch.inputs)}
    assert validation
    assert not train & validation
    assert not train & test
    assert not validation & test


def test_validation_comes_out_of_training_and_is_the_same_for_every_seed() -> None:
    """Seeds would be compared on different samples, or samples be lost."""
    everything = len(sklearn_datasets.load_digits().target)
    tasks = [digits(seed, batch_size=1) for seed in (0, 1)]
    found = [[batch.inputs for batch in split(task, "validation")] for task in tasks]
    assert all(a.equal(b) for a, b in zip(*found, strict=True))
    sizes = [sum(len(b.targets) for b in split(tasks[0], name)) for name in ("validation", "test")]
    assert tasks[0].batches_per_epoch + sum(sizes) == everything
    assert sizes[0] == pytest.approx(0.1 * (everything - sizes[1]), abs=10)


def test_each_epoch_shows_every_sample_at_most_once_and_all_but_the_last_part() -> None:
    """Some samples would count twice, others never."""
    task = digits(batch_size=16)
    for epoch in (0, 1):
        seen = drawn(task, epoch)
        assert len(seen) == len(set(seen)) == task.batches_per_epoch * 16
    everyone = set(drawn(digits(batch_size=1)))
    assert 0 <= len(everyone) - task.batches_per_epoch * 16 < 16
    assert drawn(task, 0) != drawn(task, 1)
    assert set(drawn(task, 0)) | set(drawn(task, 1)) <= everyone


@pytest.mark.parametrize("augmentation", ["none", "crop_flip", "rand_augment"])
def test_a_batch_is_a_function_of_seed_and_index_alone(augmentation: str) -> None:
    """Methods would train on other batches, in an order that depends on what was asked before."""
    first, second = digits(augment=augmentation), digits(augment=augmentation)
    expected = [first.train_batch(index) for index in range(4)]
    for index in (3, 0, 2, 1):
        batch = second.train_batch(index)
        assert batch.inputs.equal(expected[index].inputs)
        assert batch.targets.equal(expected[index].targets)
    assert not digits(seed=1).train_batch(0).targets.equal(expected[0].targets)


def test_augmentation_is_for_training_alone_and_keeps_the_labels() -> None:
    """The test score would be measured on distorted images."""
    plain, augmented = digits(), digits(augment="crop_flip")
    for name in ("validation", "test"):
        pairs = zip(split(plain, name), split(augmented, name), strict=True)
        assert all(a.inputs.equal(b.inputs) and a.targets.equal(b.targets) for a, b in pairs)
    assert augmented.train_batch(0).targets.equal(plain.train_batch(0).targets)
    assert not augmented.train_batch(0).inputs.equal(plain.train_batch(0).inputs)


@pytest.mark.parametrize("cls", [Digits, FashionMnist10k])
def test_batches_are_what_the_contract_says(cls: type[ImageClassification]) -> None:
    """A network would get numbers of another scale, type or shape."""
    task = cls(ImageOptions(), Streams(0), 32)
    batch = task.train_batch(0)
    shape = task.shape
    assert shape == cls.input_shape(ImageOptions())
    assert batch.inputs.shape == (32, shape.channels, shape.image_size, shape.image_size)
    assert batch.inputs.dtype == torch.float32
    assert batch.inputs.is_contiguous()
    assert batch.targets.dtype == torch.int64
    assert int(batch.targets.min()) >= 0 and int(batch.targets.max()) < shape.classes
    whole = torch.cat([task.train_batch(i).inputs for i in range(40)])
    assert float(whole.mean()) == pytest.approx(0, abs=0.05)
    assert float(whole.std()) == pytest.approx(1, abs=0.05)
    assert len(task.dataset_sha256) == 64


def test_digits_are_scikit_learns() -> None:
    """The images would not belong to their labels."""
    task = digits(batch_size=1)
    source = sklearn_datasets.load_digits()
    known = {
        image.astype(np.uint8).tobytes(): int(label) for image, label in zip(source.images, source.target, strict=True)
    }
    images, labels = task._splits["test"]
    matched = 0
    for image, label in zip(images, labels, strict=True):
        scaled = np.round(image[..., 0] * (16 / 255)).astype(np.uint8)
        matched += known.get(scaled.tobytes()) == label
    assert matched == len(labels)


def test_metrics_agree_with_scikit_learn() -> None:
    """Every accuracy in the table would be another number."""
    task = digits()
    generator = torch.Generator().manual_seed(0)
    scores: list[np.ndarray] = []

    def predict(inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        scores.append(torch.randn(len(inputs), 10, generator=generator).log_softmax(1).numpy())
        uniform = torch.zeros(len(inputs), 10).log_softmax(1)
        return {"": torch.from_numpy(scores[-1]), "uniform": uniform}

    found = task.evaluate("test", predict)
    labels = torch.cat([batch.targets for batch in split(task, "test")]).numpy()
    mine = np.concatenate(scores)
    assert found[""]["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(labels, mine.argmax(1)))
    probabilities = np.exp(mine.astype(np.float64))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    expected = sklearn_metrics.log_loss(labels, probabilities, labels=range(10))
    assert found[""]["cross_entropy"] == pytest.approx(expected, rel=1e-5)
    assert found["uniform"]["cross_entropy"] == pytest.approx(np.log(10), rel=1e-5)


def test_the_loss_is_each_samples_own() -> None:
    """A weighting by noise level would weight the batch's mean."""
    task, batch = digits(), digits().train_batch(0)
    logits = torch.randn(16, 10, dtype=torch.bfloat16)
    loss = task.loss(logits, batch.targets)
    expected = -logits.float().log_softmax(1)[torch.arange(16), batch.targets]
    assert loss.shape == (16,)
    assert loss.dtype == torch.float32
    assert torch.allclose(loss, expected)


def test_data_of_another_shape_than_the_suite_says_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network would be built for one shape and fed another."""
    from dbbench import data

    options = ImageDataset.Options(folder="x", classes=5, channels=1, image_size=8)
    images = data.load_images("digits", folder=None, where="task")
    monkeypatch.setattr(data, "load_images", lambda *args, **kwargs: images)
    with pytest.raises(BadInput, match=r"suite.yaml: task: the data are .*classes=10.*, the suite says .*classes=5"):
        ImageDataset(options, Streams(0), 4, "suite.yaml: task")


def test_a_batch_larger_than_the_set_is_the_whole_set() -> None:
    """An index error deep in the loop would be all that the user sees."""
    task = digits(batch_size=5_000)
    assert task.batches_per_epoch == 1
    assert len(task.train_batch(0).targets) == len(set(keys(task.train_batch(1).inputs)))
