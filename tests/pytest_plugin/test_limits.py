"""The grammar of limits."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

import pytest

from dbbench.errors import BadInput
from dbbench.pytest_plugin.limits import parse_limit
from dbbench.results.roles import ROLES


@dataclass
class Figures:
    """Figures of a step."""

    peak_bytes: int = 0
    own_peaks: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ROLES, 0))


@pytest.mark.parametrize(
    ("value", "bytes_that_hold", "bytes_that_do_not"),
    [
        ("80 MiB", 80 * 2**20, 80 * 2**20 + 1),
        ("<= 80 MiB", 80 * 2**20, 80 * 2**20 + 1),
        ("<80MiB", 80 * 2**20 - 1, 80 * 2**20),
        (">= 1 kB", 1000, 999),
        ("> 0", 1, 0),
        ("== 7", 7, 8),
        (12, 12, 13),
        (0, 0, 1),
        ("<= backprop", 1001, 1002),
        ("<= 0.25 * backprop", 250, 251),  # of 1001: 250.25
        ("0.1*backprop", 100, 101),
        (">= 2 * backprop", 2002, 2001),
    ],
)
def test_a_limit_is_held_to_the_byte(value: str | int, bytes_that_hold: int, bytes_that_do_not: int) -> None:
    """A limit would be off by one, or by what a float rounds."""
    limit = parse_limit("peak", value, "assert_peak", ["backprop"])
    references = {"backprop": Figures(peak_bytes=1001)}
    assert limit.holds(Figures(bytes_that_hold), references)
    assert not limit.holds(Figures(bytes_that_do_not), references)


def test_a_factor_is_exact() -> None:
    """0.07 × 100 would be 7.000000000000001 and a step of just that size pass a limit it does not keep."""
    limit = parse_limit("activations", "< 0.07 * other", "assert_peak", ["other"])
    reference = Figures()
    reference.own_peaks["activations"] = 100
    assert limit.bound_bytes({"other": reference}) == Fraction(7)


@pytest.mark.parametrize(
    "value",
    ["", "<=", "=< 80 MiB", "<= 80 MiB <= 90 MiB", "0.25 * 80 MiB", "backprop * 0.25", "-1", "1 + 1", "2 ** backprop",
     "__import__('os')", "<= 0.25 * backprop.peak", "= 80 MiB", 1.5, True, None, ["80 MiB"], -1, "1e9"],
)  # fmt: skip
def test_what_is_no_limit_is_refused_with_its_place(value: object) -> None:
    """A slip would limit something else, or nothing; nothing is evaluated."""
    with pytest.raises(BadInput, match=r"assert_peak\(peak="):
        parse_limit("peak", value, "assert_peak", ["backprop"])


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("activation", "1 MiB", "did you mean 'activations'?"),
        ("peak", "80 MiBs", "did you mean 'MiB'?"),
        ("peak", "<= 0.5 * backprob", "did you mean 'backprop'?"),
    ],
)
def test_a_slip_gets_the_nearest_name(name: str, value: str, words: str) -> None:
    """The user would have to look the names up."""
    with pytest.raises(BadInput, match=words.replace("?", r"\?")):
        parse_limit(name, value, "assert_peak", ["backprop"])
