"""Random streams: independent by name, repeatable, and never tied to the order in which they are asked for."""

from __future__ import annotations

import itertools
import subprocess
import sys

import torch
from scipy import stats

from dbbench.streams import Streams


def test_streams_depend_on_seed_and_name_alone() -> None:
    """A draw more of one purpose would shift the numbers of another."""

    def draw(seed: int, *name: object) -> torch.Tensor:
        return torch.rand(8, generator=Streams(seed).generator(str(name[0]), *name[1:]))

    named = [draw(0, "noise", 1, 2), draw(0, "noise", 2, 1), draw(0, "sigma", 1, 2), draw(1, "noise", 1, 2)]
    assert all(not a.equal(b) for a, b in itertools.combinations(named, 2))
    assert draw(0, "noise", 1, 2).equal(named[0])
    assert Streams(0).key("noise", 12) != Streams(0).key("noise", 1, 2)


def test_streams_are_the_same_in_another_process() -> None:
    """Python's own hash is salted: a key made from it would differ from run to run."""
    code = "from dbbench.streams import Streams; print(Streams(3).key('noise', 'a', 2))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(other.stdout) == Streams(3).key("noise", "a", 2)


def test_first_draws_of_neighbouring_streams_are_uniform() -> None:
    """Blocks or steps with neighbouring numbers would share their noise."""
    first = [torch.rand((), generator=Streams(0).generator("sigma", 0, step)).item() for step in range(2_000)]
    assert stats.kstest(first, "uniform").pvalue > 0.01
    assert abs(stats.pearsonr(first[:-1], first[1:]).statistic) < 0.07
