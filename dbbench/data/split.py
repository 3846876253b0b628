"""Holding images out: stratified, and the same on every machine for the same labels and seed."""

from __future__ import annotations

import hashlib

import numpy as np

from dbbench.errors import BadInput


def split_validation(
    labels: np.ndarray, validation_fraction: float, seed: int, purpose: str = "validation"
) -> tuple[np.ndarray, np.ndarray]:
    """Split the indices of ``labels`` (int ``[N]``, of the training part) into ``(train, validation)``.

    Both are int64 and in file order; together they are ``0..N-1``. Each class gives its share of
    ``round(validation_fraction * N)`` images to within one, and keeps at least one for training; fraction 0 holds
    out nothing. The draw depends on ``seed`` and ``purpose`` alone, never on a global random state.
    Raises `BadInput` if the fraction is not in [0, 1).
    """
    if not 0 <= validation_fraction < 1:
        raise BadInput(f"validation_fraction: {validation_fraction} is not in [0, 1)")
    key = hashlib.sha256(f"dbbench {purpose} {seed}".encode()).digest()
    # Ranking plain uniform draws keeps the split on the part of numpy's stream that does not change with its version.
    draws = np.random.Generator(np.random.PCG64(int.from_bytes(key[:16], "little"))).random(len(labels))
    classes, class_counts = np.unique(labels, return_counts=True)
    held_out = np.zeros(len(labels), dtype=bool)
    for value, count in zip(classes, _share(class_counts, validation_fraction), strict=True):
        members = np.flatnonzero(labels == value)
        held_out[members[np.argsort(draws[members], kind="stable")[:count]]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def _share(class_counts: np.ndarray, fraction: float) -> np.ndarray:
    """Return how many of each class to hold out: rounded by largest remainder, at most all but one."""
    exact = class_counts * fraction
    shares = np.floor(exact).astype(np.int64)
    left = round(float(exact.sum())) - int(shares.sum())
    shares[np.argsort(shares - exact, kind="stable")[:left]] += 1
    return np.minimum(shares, class_counts - 1)
