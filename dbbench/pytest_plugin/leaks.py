"""``@pytest.mark.memory_leaks("0 B", warmup=1)``: what is alive after a test that was not before, by holder.

This module is read in everybody's pytest runs, so it imports torch only when a test is measured.
"""

from __future__ import annotations

import functools
import gc
import inspect
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from dbbench.errors import BadInput, did_you_mean
from dbbench.sizes import parse_size

_HOLDERS_SHOWN = 5


@dataclass(frozen=True)
class Allowance:
    """How many bytes a test may leave behind, and how often its body runs before that is measured."""

    size_bytes: int
    warmup: int


def allowance(marker: Any, where: str) -> Allowance | None:
    """Return what a ``memory_leaks`` marker says, None without one. Raises BadInput, opened by ``where``."""
    if marker is None:
        return None
    place = f"{where}: memory_leaks"
    for name in marker.kwargs:
        if name not in ("size", "warmup"):
            raise BadInput(f"{place}({name}=…): there is no such option{did_you_mean(name, ('size', 'warmup'))}")
    given = [*marker.args, *([marker.kwargs["size"]] if "size" in marker.kwargs else [])]
    if len(given) > 1:
        raise BadInput(f"{place}: takes one size, such as memory_leaks('0 B')")
    warmup = marker.kwargs.get("warmup", 1)
    if not isinstance(warmup, int) or isinstance(warmup, bool) or not 0 <= warmup <= 1000:
        raise BadInput(f"{place}(warmup={warmup!r:.40}): is no number of runs from 0 to 1000")
    return Allowance(parse_size(given[0] if given else 0, place, least=0), warmup)


def measured_leaks(
    test: Callable[..., Any], allowed: Allowance, fixtures: Callable[[], Mapping[str, Any]], name: str
) -> Callable[..., Any]:
    """Return ``test`` with its leaks held against what is ``allowed``; only a plain function can be run again."""
    if inspect.iscoroutinefunction(test) or inspect.isgeneratorfunction(test):
        raise BadInput(f"{name}: memory_leaks: runs a test several times, which only a plain function allows")

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        from dbbench.pytest_plugin.watching import Baseline

        for _ in range(allowed.warmup):
            test(*args, **kwargs)
        gc.collect()
        before = Baseline()
        result = test(*args, **kwargs)
        gc.collect()
        left = before.left_behind(fixtures(), name)
        size = sum(left.values())
        if size > allowed.size_bytes:
            pytest.fail(_words(left, size, allowed), pytrace=False)
        return result

    return run


def _words(left: Counter[str], size: int, allowed: Allowance) -> str:
    times = f" (after {allowed.warmup} runs to warm up)" if allowed.warmup else ""
    lines = [f"{size:,} bytes are alive after the test that were not before{times}; {allowed.size_bytes:,} are allowed"]
    lines += [f"  {held:>14,} bytes: {holder}" for holder, held in left.most_common(_HOLDERS_SHOWN)]
    if len(left) > _HOLDERS_SHOWN:
        lines.append(f"  and {len(left) - _HOLDERS_SHOWN} more holders")
    return "\n".join(lines)
