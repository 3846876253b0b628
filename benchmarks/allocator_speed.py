"""What simulating the caching allocator costs an event, up to a million of them.

    python -m benchmarks.allocator_speed [--out reports/allocator/speed.md]

Two kinds of trace. *steps*: 2,000 tensors come, and go in the reverse order, again and again, as a training's
activations do. *growing*: sizes from 64 bytes to 32 MiB, of which more come than go, so that there are the more blocks
the longer the trace: the worst case of the searches. Times are this process's own (`time.process_time`), the median of
the rounds; the exponent is that of events in time, fitted through the three lengths: 1 is linear, and n log n
fits 1.09 here.
"""

from __future__ import annotations

import argparse
import platform
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dbbench.measure.allocator import replay
from dbbench.measure.allocator_settings import AllocatorSettings
from dbbench.report.text import markdown_table
from dbbench.results.trace import Trace, Window

LENGTHS = (10_000, 100_000, 1_000_000)
ROUNDS = 3
TEXTS = ("", "expandable_segments:True", "max_split_size_mb:20", "roundup_power2_divisions:8")
A_STEP = 2_000


def _size(generator: random.Random) -> int:
    return int(2 ** generator.uniform(6, 25))


def steps(length: int) -> list[tuple[int, int]]:
    """Return (storage, bytes) of steps that are all alike."""
    generator = random.Random(0)
    sizes = [_size(generator) for _ in range(A_STEP)]
    events: list[tuple[int, int]] = []
    while len(events) < length:
        first = len(events)
        events += [(first + place, size) for place, size in enumerate(sizes)]
        events += [(first + place, -sizes[place]) for place in reversed(range(A_STEP))]
    return events[:length]


def growing(length: int) -> list[tuple[int, int]]:
    """Return (storage, bytes) of a trace in which in turn more come, then more go, ending far above its beginning."""
    generator, live, events = random.Random(0), [(0, 64)], [(0, 64)]
    for number in range(1, length):
        comes = generator.random() < (0.75 if number * 8 // length % 2 == 0 else 0.3)
        if comes or not live:
            live.append((number, _size(generator)))
            events.append(live[-1])
        else:
            place = generator.randrange(len(live))
            live[place], live[-1] = live[-1], live[place]
            storage, size = live.pop()
            events.append((storage, -size))
    return events


def seconds(events: list[tuple[int, int]], text: str) -> float:
    """Return how long a replay takes."""
    trace = Trace("fake")
    trace.event_storage, trace.event_bytes = [storage for storage, _ in events], [size for _, size in events]
    trace.windows = [Window("step", 0, 0, 0, len(events))]
    start = time.process_time()
    replay(trace, AllocatorSettings.parse(text))
    return time.process_time() - start


def table() -> str:
    """Measure, and return the table."""
    kinds: dict[str, Callable[[int], list[tuple[int, int]]]] = {"steps": steps, "growing": growing}
    rows = []
    for kind, make in kinds.items():
        traces = [make(length) for length in LENGTHS]
        for text in TEXTS:
            medians = [statistics.median(seconds(events, text) for _ in range(ROUNDS)) for events in traces]
            exponent = np.polyfit(np.log(LENGTHS), np.log(medians), 1)[0]
            each = [f"{1e6 * took / length:.1f}" for took, length in zip(medians, LENGTHS, strict=True)]
            rows.append([kind, text or "default", *each, f"{medians[-1]:.1f}", f"{exponent:.2f}"])
    header = [
        "trace",
        "settings",
        *(f"{length:,} events: µs each" for length in LENGTHS),
        "seconds for all",
        "exponent",
    ]
    return markdown_table(header, rows, left=2)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("reports/allocator/speed.md"))
    out = parser.parse_args().out
    kinds = __doc__.split("\n\n")[2].replace("\n", " ").strip()
    made = f"Made by `python -m benchmarks.allocator_speed`, one process, Python {platform.python_version()}."
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(f"# What the simulated allocator costs\n\n{made} {kinds}\n\n{table()}\n")
    print(out.read_text())


if __name__ == "__main__":
    main()
