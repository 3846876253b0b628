"""The search for the largest value that fits, against functions whose edge is known without searching."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbbench.estimate.search import Edge, Probe, Search

Need = Callable[[int], int]


def run(need: Need, capacities: list[int], *, lowest: int = 1, highest: int = 65_536, second: int = 16) -> Search:
    """Search to the end, with what is live a tenth below what is needed (an allocator's rounding and gaps)."""
    search = Search(lowest, highest, second, capacities)
    for _ in range(200):
        values = search.wanted()
        if not values:
            return search
        assert not set(values) & set(search.probes), "asked twice"
        assert all(lowest <= value <= highest for value in values)
        for value in values:
            size = need(value)
            search.take(Probe(value, size, size * 9 // 10, tuple(size <= capacity for capacity in capacities)))
    raise AssertionError("does not end")


def largest(need: Need, capacity: int, highest: int = 65_536) -> int | None:
    """Return the largest value that fits, by looking at every one."""
    return max((v for v in range(1, highest + 1) if need(v) <= capacity), default=None)


SHAPES: dict[str, Need] = {
    "affine": lambda v: 7_000 + 31 * v,
    "no fixed part": lambda v: 48 * v,
    "quadratic": lambda v: 900 + 5 * v + v * v // 40,
    "steps of seven": lambda v: 500 + 300 * -(-v // 7),
    "a jump at 500": lambda v: 100 * v + (30_000 if v >= 500 else 0),
    "a peak that moves": lambda v: max(20_000 + v, 90 * v),
    "ever flatter": lambda v: int(3_000 * v**0.5),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("capacity", [7_100, 52_000, 81_234])
def test_the_edge_is_where_looking_everywhere_finds_it(shape: str, capacity: int) -> None:
    """Broken if the value found is not the largest that fits, or if its successor was not probed."""
    need = SHAPES[shape]
    search = run(need, [capacity])
    expected = largest(need, capacity)
    edge = search.edge(0)
    assert edge.largest == expected
    following = (expected or 0) + 1
    assert edge.following == following and following in search.probes
    assert edge.gaps == ()


@pytest.mark.parametrize("shape", SHAPES)
def test_probes_are_few(shape: str) -> None:
    """Broken if the search bisects where a line tells it where to look: a probe takes seconds."""
    assert len(run(SHAPES[shape], [52_000, 81_234]).probes) <= 24  # bisecting from 65,536 takes 17 an edge
    assert len(run(SHAPES["affine"], [52_000, 81_234]).probes) <= 2 + 2 * 5


def test_memories_share_their_probes() -> None:
    """Broken if each memory is searched by itself: one probe answers for all."""
    need = SHAPES["affine"]
    together = len(run(need, [50_000, 50_100, 50_200]).probes)
    assert together < sum(len(run(need, [capacity]).probes) for capacity in (50_000, 50_100, 50_200))
    many = run(need, [50_000, 8_000])
    assert [many.edge(i).largest for i in range(2)] == [largest(need, 50_000), largest(need, 8_000)]


def test_nothing_fits_and_everything_fits_are_results() -> None:
    """Broken if a memory too small for the lowest value, or a cap that fits, is an error or never ends."""
    need = SHAPES["affine"]
    assert run(need, [5_000]).edge(0) == Edge(None, 1)
    assert run(need, [5_000], lowest=4).edge(0) == Edge(None, 4)
    assert run(need, [10**9], highest=100).edge(0) == Edge(100, None)
    assert run(need, [10**9], highest=1).edge(0) == Edge(1, None)


def islanded(value: int) -> int:
    """Return a need that dips at 103, whose neighbours below need more than at 100."""
    return 10_000 + 100 * value - (600 if value == 103 else 0)


def test_an_island_above_the_edge_is_found_and_told() -> None:
    """Broken if a larger value that fits, above a smaller one that does not, goes unnoticed or untold."""
    search = run(islanded, [20_000])
    assert search.edge(0) == Edge(103, 104, gaps=(101, 102))


def test_no_island_is_looked_for_where_live_tensors_fill_the_memory() -> None:
    """Broken if probes are spent on values that no allocator could fit."""

    def probed(live: float) -> set[int]:
        search = Search(1, 1_000, 16, [20_000])
        while values := search.wanted():
            for v in values:
                size = 10_000 + 100 * v
                search.take(Probe(v, size, int(size * live), (size <= 20_000,)))
        assert search.edge(0) == Edge(100, 101)
        return set(search.probes)

    assert 103 in probed(live=0.9)
    assert 103 not in probed(live=1.0)
    assert 125 in probed(live=0.8)
    assert 125 not in probed(live=0.9)


@given(
    fixed=st.integers(0, 10_000),
    rate=st.integers(1, 500),
    bumps=st.dictionaries(st.integers(1, 400), st.integers(-3_000, 3_000), max_size=30),
    capacity=st.integers(1, 100_000),
    second=st.integers(2, 40),
)
def test_whatever_the_shape_a_value_fits_and_the_next_does_not(
    fixed: int, rate: int, bumps: dict[int, int], capacity: int, second: int
) -> None:
    """Broken if bumps make the search loop, or report an edge that no probe stands behind."""

    def need(value: int) -> int:
        return max(0, fixed + rate * value + bumps.get(value, 0))

    search = run(need, [capacity], highest=2_000, second=second)
    edge = search.edge(0)
    if edge.largest is not None:
        assert need(edge.largest) <= capacity
        assert all(need(v) > capacity for v in edge.gaps)
    if edge.following is None:
        assert edge.largest == 2_000
    else:
        assert edge.following == (edge.largest or 0) + 1
        assert need(edge.following) > capacity
    assert not any(probe.fits[0] for v, probe in search.probes.items() if v > (edge.largest or 0))
