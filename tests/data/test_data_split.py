"""The validation split, over random label arrays."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbbench.data import split_validation
from dbbench.errors import BadInput


@settings(max_examples=100, deadline=None)
@given(
    counts=st.lists(st.integers(1, 40), min_size=1, max_size=8),
    fraction=st.floats(0, 0.95),
    seed=st.integers(-(2**40), 2**40),
)
def test_parts_are_disjoint_complete_and_stratified(counts: list[int], fraction: float, seed: int) -> None:
    """A leak between the parts, or a class left out of training, would show here."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    train, validation = split_validation(labels, fraction, seed)
    assert not set(train) & set(validation)
    assert sorted([*train, *validation]) == list(range(len(labels)))
    assert train.dtype == validation.dtype == np.int64
    held_out = np.bincount(labels[validation], minlength=len(counts))
    assert (np.abs(held_out - np.array(counts) * fraction) <= 1 + 1e-9).all()
    assert (held_out < np.array(counts)).all()
    assert list(train) == sorted(train)


def test_the_size_is_the_rounded_share() -> None:
    labels = np.repeat(np.arange(10), 33)
    assert len(split_validation(labels, 0.1, 0)[1]) == 33


def test_it_depends_on_the_seed_and_on_no_global_state() -> None:
    labels = np.repeat(np.arange(10), 100)
    np.random.seed(1)  # noqa: NPY002
    first = split_validation(labels, 0.1, 3)
    np.random.seed(2)  # noqa: NPY002
    again = split_validation(labels, 0.1, 3)
    np.testing.assert_array_equal(first[1], again[1])
    assert not np.array_equal(first[1], split_validation(labels, 0.1, 4)[1])
    assert not np.array_equal(first[1], split_validation(labels, 0.1, 3, purpose="test")[1])


def test_a_given_seed_draws_what_the_recipe_says() -> None:
    """The split is part of a baseline; it is computed here from the raw generator, without the function."""
    labels = np.zeros(50, dtype=np.int64)
    key = int.from_bytes(hashlib.sha256(b"dbbench validation 7").digest()[:16], "little")
    raw = np.random.PCG64(key).random_raw(50) >> np.uint64(11)
    np.testing.assert_array_equal(split_validation(labels, 0.2, 7)[1], np.sort(np.argsort(raw)[:10]))


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 1.5, float("nan")])
def test_a_fraction_outside_its_range_is_refused(fraction: float) -> None:
    with pytest.raises(BadInput, match="validation_fraction"):
        split_validation(np.array([0, 1]), fraction, 0)
