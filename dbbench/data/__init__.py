"""Image sets by name and texts, validated as they load: embedded, scikit-learn's digits, or from local folders.

Nothing is downloaded and nothing is unpickled. Importing this package imports neither torch nor an optional library;
`dbbench.data.augment`, which needs torch, is imported on its own.
"""

from dbbench.data.image_set import ImageSet
from dbbench.data.load import load_images
from dbbench.data.split import split_validation

__all__ = ["ImageSet", "load_images", "split_validation"]
