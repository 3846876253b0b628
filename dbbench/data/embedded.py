"""The sets that need no folder: the embedded slice of Fashion-MNIST, and scikit-learn's digits."""

from __future__ import annotations

import hashlib
import io
from importlib.resources import as_file, files

import numpy as np

from dbbench.data.fashion_mnist import CLASSES
from dbbench.data.image_set import About, ImageSet, make_image_set
from dbbench.data.reading import import_optional, read_bytes
from dbbench.data.split import split_validation
from dbbench.errors import BadInput

SLICE_FILE = files("dbbench.data") / "files" / "fashion_mnist_10k_2k.npz"
SLICE_SHA256 = "5fc7acf174cdbb9e64f403ae312757980951e88a29aa904a9db5b54e4303d4e8"


def load_fashion_mnist_10k(*, where: str) -> ImageSet:
    """Return the first 1,000 training and 200 test images (28 x 28 x 1) of each of Fashion-MNIST's ten classes."""
    with as_file(SLICE_FILE) as path:
        content = read_bytes(path, where)
    found = hashlib.sha256(content).hexdigest()
    if found != SLICE_SHA256:
        raise BadInput(f"{where}: {path}: damaged (sha256 {found}, not {SLICE_SHA256}): reinstall dbbench")
    arrays = np.load(io.BytesIO(content), allow_pickle=False)
    about = About(
        name="fashion_mnist_10k",
        origin=path.name,
        source="Fashion-MNIST (Xiao, Rasul, Vollgraf 2017), first 1,000 and 200 images of each class",
        licence="MIT, Copyright (c) 2017 Zalando SE",
    )
    train = arrays["x_train"][..., None], arrays["y_train"]
    test = arrays["x_test"][..., None], arrays["y_test"]
    return make_image_set(about, train, test, CLASSES, where)


def load_digits(*, where: str) -> ImageSet:
    """Return scikit-learn's 1,797 digits (8 x 8 x 1), counts 0..16 rescaled to 0..255.

    The library has no test part, so a fifth of each class is held out, always the same one.
    """
    library = import_optional("sklearn.datasets", "scikit-learn", "test", where)
    bunch = library.load_digits()
    if bunch.images.shape != (1797, 8, 8) or bunch.images.min() != 0 or bunch.images.max() != 16:
        raise BadInput(f"{where}: scikit-learn's digits are not the 1,797 images 8 x 8 in 0..16 they should be")
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    train, test = split_validation(bunch.target, 0.2, seed=0, purpose="digits test")
    about = About(
        name="digits",
        origin="sklearn.datasets.load_digits",
        source="Optical recognition of handwritten digits (Alpaydin, Kaynak 1998; UCI), as in scikit-learn",
        licence="CC BY 4.0 (UCI)",
    )
    parts = [(images[part], bunch.target[part]) for part in (train, test)]
    return make_image_set(about, parts[0], parts[1], tuple("0123456789"), where)
