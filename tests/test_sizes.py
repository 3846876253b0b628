"""Sizes, on the command line and in tests' limits."""

from __future__ import annotations

import pytest

from dbbench.errors import BadInput
from dbbench.sizes import parse_size


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("24GiB", 24 * 1024**3),
        ("80GB", 80_000_000_000),
        ("512 MiB", 536_870_912),
        ("1.5kib", 1536),
        ("0.1GB", 100_000_000),  # a float would give 100,000,000.00000001
        ("4096", 4096),
        ("7B", 7),
        (" 1.5 GiB ", 1_610_612_736),
        (12 * 2**20, 12_582_912),
    ],
)
def test_sizes_are_read_exactly(text: str | int, size_bytes: int) -> None:
    """A budget of 80 GB would be taken for one of 80 GiB, or be off by a byte."""
    assert parse_size(text, "--memory") == size_bytes


@pytest.mark.parametrize("text", ["", "GiB", "-1GiB", "1e9", "12 G iB", "0", "0.1B", "9999999TiB", "nan"])
def test_what_is_no_size_is_refused_in_one_line(text: str) -> None:
    """A slip would become a budget of nothing, or a traceback."""
    with pytest.raises(BadInput, match="--memory"):
        parse_size(text, "--memory")


@pytest.mark.parametrize("value", [-1, True, 1.5, None, ["80 MiB"]])
def test_what_is_no_whole_number_of_bytes_is_refused(value: object) -> None:
    """A float would be cut, and True be one byte."""
    with pytest.raises(BadInput, match="--memory"):
        parse_size(value, "--memory")  # type: ignore[arg-type]


def test_an_unknown_unit_gets_the_nearest_name() -> None:
    """The user would have to guess the spelling."""
    with pytest.raises(BadInput, match=r"did you mean 'GiB'"):
        parse_size("24GiBs", "--memory")


def test_an_allowance_may_be_nothing() -> None:
    """A headroom of zero is a fair thing to ask."""
    assert parse_size("0MiB", "--headroom", least=0) == 0
