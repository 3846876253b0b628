"""Limits as people write them, in a marker or an assertion, and what is wrong with those that are none.

    limit      = [ "<=" | "<" | ">=" | ">" | "==" ] bound          # without a comparison: "<="
    bound      = size | [ factor "*" ] reference
    size       = "80 MiB", "1.5 GiB", "4096", or a whole number of bytes
    factor     = "0.25", "2"                                       # taken exactly, not as a float
    reference  = the name of another step that was declared

Nothing is evaluated as Python. This module is read in everybody's pytest runs, so it imports no torch.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol

from dbbench.errors import BadInput, did_you_mean
from dbbench.results.roles import ROLES
from dbbench.sizes import parse_size

#: What can be limited: the peak, what is kept at the end, and the most that each role reaches by itself at any instant.
NAMES = ("peak", "kept", *ROLES)
DEVICES = ("cpu", "cuda", "fake")

_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le,
    "<": operator.lt,
    ">=": operator.ge,
    ">": operator.gt,
    "==": operator.eq,
}
_LIMIT = re.compile(r"\s*(?P<comparison><=|>=|==|<|>)?\s*(?P<bound>[^<>=\s][^<>=]*?)\s*")
_REFERENCE = re.compile(r"(?:(?P<factor>\d+(?:\.\d+)?)\s*\*\s*)?(?P<name>[A-Za-z_]\w*)")


class Figures(Protocol):
    """What a limit is held against; bytes."""

    @property
    def peak_bytes(self) -> int: ...

    @property
    def kept_bytes(self) -> int: ...

    @property
    def own_peaks(self) -> dict[str, int]: ...


def bytes_of(figures: Figures, name: str) -> int:
    """Return the peak, what was kept at the end, or what the role ``name`` reached by itself."""
    if name == "kept":
        return figures.kept_bytes
    return figures.peak_bytes if name == "peak" else figures.own_peaks[name]


@dataclass(frozen=True)
class Limit:
    """A limit of ``name``: ``size_bytes`` or, where that is None, ``factor`` times the same figure of a reference."""

    name: str
    comparison: str
    size_bytes: int | None
    factor: Fraction
    reference: str
    written: str

    def bound_bytes(self, references: Mapping[str, Figures]) -> Fraction:
        """Return the bytes that it allows."""
        if self.size_bytes is not None:
            return Fraction(self.size_bytes)
        return self.factor * bytes_of(references[self.reference], self.name)

    def holds(self, figures: Figures, references: Mapping[str, Figures]) -> bool:
        """Tell whether ``figures`` keep to it, exactly."""
        return _COMPARISONS[self.comparison](bytes_of(figures, self.name), self.bound_bytes(references))


def parse_limit(name: str, value: object, where: str, references: Collection[str] | None = None) -> Limit:
    """Return the limit of ``name`` that ``value`` (text, or bytes) writes.

    ``references`` are the steps that may be named, None where there can be none. Raises BadInput, opened by ``where``.
    """
    place = f"{where}({name}={value!r:.60})"
    if name not in NAMES:
        raise BadInput(f"{place}: there is no limit '{name}'{did_you_mean(name, NAMES)}")
    if isinstance(value, int) or not isinstance(value, str):
        size = parse_size(value, place, least=0)  # type: ignore[arg-type]  # it refuses what is no size
        return Limit(name, "<=", size, Fraction(1), "", f"<= {size:,} byte{'s' * (size != 1)}")
    parts = _LIMIT.fullmatch(value)
    forms = "'80 MiB' or '<= 80 MiB'" + ("" if references is None else " or '<= 0.25 * backprop'")
    if parts is None:
        raise BadInput(f"{place}: that is no limit; write {forms}")
    comparison, bound = parts["comparison"] or "<=", parts["bound"]
    written = f"{comparison} {' '.join(bound.split())}"
    named = _REFERENCE.fullmatch(bound)
    if named is None:
        if not bound[0].isdigit() or "*" in bound:
            raise BadInput(f"{place}: '{bound:.40}' is neither a size nor a factor of a reference; write {forms}")
        return Limit(name, comparison, parse_size(bound, place, least=0), Fraction(1), "", written)
    if references is None:
        raise BadInput(f"{place}: a marker knows no reference '{named['name']}'; write a size, or use assert_peak")
    if named["name"] not in references:
        known = did_you_mean(named["name"], references) if references else "; none is declared"
        raise BadInput(
            f"{place}: there is no reference '{named['name']}'{known}; declare one with {named['name']}=other_step or "
            f'assert_peak.reference("{named["name"]}", other_step)'
        )
    return Limit(name, comparison, None, Fraction(named["factor"] or 1), named["name"], written)


@dataclass(frozen=True)
class Marked:
    """What the markers of a test say: its limits, and the device whose bytes count (None: found out).

    Where all of them are the session's, it ``may_measure_nothing``.
    """

    limits: list[Limit]
    device: str | None
    may_measure_nothing: bool = False


def marked(markers: Iterable[Any], where: str) -> Marked | None:
    """Return what a test's ``memory_limit`` markers say together, None where it has none.

    ``markers`` are the closest first: a limit of the test's own comes before its class's of the same name. Raises
    BadInput, opened by ``where`` (the test), for what cannot be a limit.
    """
    written: dict[str, Any] = {}
    any_marker = False
    for marker in markers:
        any_marker = True
        if marker.args:
            given = f"{marker.args[0]!r:.40}"
            raise BadInput(f"{where}: memory_limit({given}): say of what, as in memory_limit(peak={given})")
        for name, value in marker.kwargs.items():
            if name != "device" and name not in NAMES:
                raise BadInput(f"{where}: memory_limit({name}=…){_nearest(name)}")
            written.setdefault(name, value)
    if not any_marker:
        return None
    device = written.pop("device", None)
    if device is not None and device not in DEVICES:
        raise BadInput(f"{where}: memory_limit(device={device!r:.40}){did_you_mean(str(device), DEVICES)}")
    if not written:
        raise BadInput(f'{where}: memory_limit() limits nothing; write one such as memory_limit(peak="80 MiB")')
    return Marked([parse_limit(name, value, f"{where}: memory_limit") for name, value in written.items()], device)


def session_limits(written: str, where: str) -> list[Limit]:
    """Return the limits that a whole session has, written as ``80 MiB`` (of the peak) or ``peak=80 MiB, kept=0 B``.

    Raises BadInput, opened by ``where``.
    """
    found: dict[str, Limit] = {}
    for part in filter(None, map(str.strip, written.split(","))):
        named = re.fullmatch(r"([A-Za-z_]\w*)\s*=(?!=)(.*)", part)
        name, value = (named[1], named[2]) if named else ("peak", part)
        if name in found:
            raise BadInput(f"{where}: '{name}' is limited twice")
        found[name] = parse_limit(name, value.strip(), where)
    return list(found.values())


def _nearest(name: str) -> str:
    return f": there is no limit '{name}'{did_you_mean(name, (*NAMES, 'device'))}"
