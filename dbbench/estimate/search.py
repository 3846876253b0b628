"""The search for the largest value that fits, apart from how one finds out whether a value does.

A probe costs seconds, so the search asks for as few as it can: two values to begin with, the line through what they
need, then both sides of where it meets the memory, until a value fits and the next one does not. All memories share the
probes. What fits need not be monotone (an allocator rounds and leaves gaps), so values just above an edge are asked for
as well, and every answer counts.
"""

from __future__ import annotations

import bisect
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

#: How often an edge may move up to an island of fitting values above it.
MAX_ISLANDS = 4


@dataclass(frozen=True)
class Probe:
    """What one value was found to need.

    ``need_bytes`` is what it would take of a device without end, by which the search guesses; ``live_bytes`` what no
    allocator can do without; ``fits`` says for each memory whether it fits.
    """

    value: int
    need_bytes: int
    live_bytes: int
    fits: tuple[bool, ...]


@dataclass(frozen=True)
class Edge:
    """Where a memory ends: ``largest`` fits (None: not even the lowest value does) and ``following`` does not.

    ``following`` is None where the search was stopped by its cap. ``gaps`` are probed values below ``largest`` that do
    not fit: there it is not monotone.
    """

    largest: int | None
    following: int | None
    gaps: tuple[int, ...] = ()


@dataclass
class Search:
    """Which values to probe next, from ``lowest`` to ``highest`` at most, for the memories ``capacities`` (bytes)."""

    lowest: int
    highest: int
    second: int
    capacities: Sequence[int]
    probes: dict[int, Probe] = field(default_factory=dict)
    # by memory: how often it was looked for above all probes, the widths of its brackets, the edges looked beyond
    _climbs: Counter[int] = field(default_factory=Counter)
    _widths: defaultdict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    _edges: defaultdict[int, set[int]] = field(default_factory=lambda: defaultdict(set))

    def take(self, probe: Probe) -> None:
        """Note an answer."""
        self.probes[probe.value] = probe

    def wanted(self) -> list[int]:
        """Return the values to probe now, together; none when every memory's edge is known."""
        if not self.probes:
            return sorted({self.lowest, min(max(self.second, self.lowest), self.highest)})
        return sorted({value for memory in range(len(self.capacities)) for value in self._wanted(memory)})

    def edge(self, memory: int) -> Edge:
        """Return where the memory of that index ends, by what has been probed so far."""
        low, high = self._bracket(memory)
        gaps = [v for v in sorted(self.probes) if low is not None and v < low and not self.probes[v].fits[memory]]
        return Edge(low, high, tuple(gaps))

    def _bracket(self, memory: int) -> tuple[int | None, int | None]:
        """Return the largest value that fits and the smallest above it that does not."""
        low = max((v for v, probe in self.probes.items() if probe.fits[memory]), default=None)
        above = self.lowest - 1 if low is None else low
        high = min((v for v, probe in self.probes.items() if v > above and not probe.fits[memory]), default=None)
        return low, high

    def _wanted(self, memory: int) -> set[int]:
        low, high = self._bracket(memory)
        if low == self.highest:
            return set()
        below = self.lowest - 1 if low is None else low
        if high is None:
            return self._upward(below, memory)
        if high > below + 1:
            return self._inside(below, high, memory)
        return self._beyond(below, memory)

    def _upward(self, low: int, memory: int) -> set[int]:
        """Where the line through the last probes reaches the memory; ever further up once that has fallen short twice.

        Probes closer than a fifth to the last do not count: an allocator's rounding would set the line's slope.
        """
        climbs = self._climbs[memory]
        farthest = low + max(1, low * 2**climbs // 64 if climbs > 1 else 1)
        self._climbs[memory] += 1
        last = self.probes[max(self.probes)]
        before = self.probes[max((v for v in self.probes if v <= 0.8 * last.value), default=last.value)]
        rise = (last.need_bytes - before.need_bytes) / max(last.value - before.value, 1)
        room = self.capacities[memory] - last.need_bytes
        guess = max(last.value + int(room / rise) if rise > 0 else 4 * low, farthest)
        return self._around(min(guess, self.highest), low, self.highest + 1)

    def _inside(self, low: int, high: int, memory: int) -> set[int]:
        """Where the probes' curve meets the memory; if that narrows too slowly, the geometric middle besides."""
        width, middle = high - low, round(math.sqrt(max(low, 1) * high))
        guess = self._crossing(low, high, self.capacities[memory]) if low in self.probes else middle
        widths = self._widths[memory]
        slow = len(widths) > 1 and 2 * width > widths[-2]
        widths.append(width)
        values = self._around(min(max(guess, low + 1), high - 1), low, high)
        return values | ({middle} - {low, high} if slow else set())

    def _around(self, guess: int, low: int, high: int) -> set[int]:
        """Return ``guess`` and the value above it; the guess alone where it is far from every probe, so a rough one."""
        close = any(abs(guess - value) <= guess // 16 + 1 for value in self.probes)
        return {value for value in ((guess, guess + 1) if close else (guess,)) if low < value < high}

    def _crossing(self, low: int, high: int, capacity: int) -> int:
        """Return the last value between two probes at which the curve through them stays within ``capacity``.

        The curve is a line, or, through a third probe that is not too near to either, a parabola: where a mask has an
        entry for every pair of tokens, the need is quadratic.
        """
        ends = [self.probes[low], self.probes[high]]
        apart = [p for p in self.probes.values() if min(abs(p.value - low), abs(p.value - high)) > (high - low) / 4]
        nodes = ends + sorted(apart, key=lambda p: min(abs(p.value - low), abs(p.value - high)))[:1]

        def curve(value: int) -> int:  # Lagrange's form
            parts = (math.prod((value - q.value) / (p.value - q.value) for q in nodes if q is not p) for p in nodes)
            return round(sum(p.need_bytes * part for p, part in zip(nodes, parts, strict=True)))

        return low + bisect.bisect_right(range(low, high + 1), capacity, key=curve) - 1

    def _beyond(self, low: int, memory: int) -> set[int]:
        """A few values above an edge, in case a larger one fits: the edge moves up if it does.

        Where the live tensors alone, by the line between the probes around, are more than the memory, no larger value
        can fit, and nothing is asked.
        """
        edges = self._edges[memory]
        edges.add(low)
        if len(edges) > MAX_ISLANDS:
            return set()
        candidates = {low + 2, low + 3, round(1.25 * low)}
        return {
            value
            for value in candidates - set(self.probes)
            if low + 1 < value <= self.highest and self._live_bytes(value) <= self.capacities[memory]
        }

    def _live_bytes(self, value: int) -> float:
        """Return what is live at a value, by the line through the nearest probes around or, above all, below it."""
        values = sorted(self.probes)
        place = min(max(bisect.bisect_left(values, value), 1), len(values) - 1)
        left, right = self.probes[values[place - 1]], self.probes[values[place]]
        rise = (right.live_bytes - left.live_bytes) / max(right.value - left.value, 1)
        return left.live_bytes + rise * (value - left.value)
