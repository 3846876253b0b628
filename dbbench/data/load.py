"""`load_images`: from the name in a suite to a validated `ImageSet`."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from dbbench.data.cifar import load_cifar10, load_cifar100
from dbbench.data.embedded import load_digits, load_fashion_mnist_10k
from dbbench.data.fashion_mnist import load_fashion_mnist
from dbbench.data.image_dataset import load_image_dataset
from dbbench.data.image_set import ImageSet
from dbbench.errors import BadInput, did_you_mean

#: A loader takes ``where``, ``folder`` if it reads one, and its own options, all by keyword.
LOADERS: dict[str, Callable[..., ImageSet]] = {
    "digits": load_digits,
    "fashion_mnist_10k": load_fashion_mnist_10k,
    "fashion_mnist": load_fashion_mnist,
    "cifar10": load_cifar10,
    "cifar100": load_cifar100,
    "image_dataset": load_image_dataset,
}


def load_images(name: str, folder: str | None = None, where: str = "task", **options: object) -> ImageSet:
    """Load and validate the image set ``name``, from ``folder`` where it is not embedded.

    ``options`` are the loader's own: ``labels`` (``fine`` or ``coarse``) for ``cifar100``; ``image_column``,
    ``label_column``, ``train_split`` and ``test_split`` for ``image_dataset``. ``where`` names the file and key of
    the suite and opens every complaint. Raises `BadInput` for an unknown name or option, and for a file that is
    missing, damaged or not what its name says.
    """
    if name not in LOADERS:
        raise BadInput(f"{where}: unknown image set '{name}'{did_you_mean(name, LOADERS)}")
    known = set(inspect.signature(LOADERS[name]).parameters) - {"where"}
    if folder is not None:
        if "folder" not in known:
            raise BadInput(f"{where}: '{name}' is built in and takes no folder")
        options["folder"] = folder
    for option, value in options.items():
        if option not in known:
            raise BadInput(f"{where}: '{name}' has no option '{option}'{did_you_mean(option, known)}")
        if not isinstance(value, str):
            raise BadInput(f"{where}: {option}: {value!r} is not a text")
    return LOADERS[name](where=where, **options)
