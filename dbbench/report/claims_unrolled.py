"""Recurrent depth: which trainings through K′ of a core's K applications a denoiser of one pass is compared with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from dbbench.report.run import Configuration, Run

SHAPE = ("recurrences", "prelude", "coda")
#: Applications of the core and the layers before and behind it by size, as `dbbench.networks.recurrent` has them: a
#: record spells out only what a suite changed. A test holds the two against each other.
SIZES = {"micro": (3, 1, 1), "tiny": (8, 1, 1), "124m": (32, 2, 2), "3.5b": (32, 2, 2)}


class Shape(NamedTuple):
    """K applications of a core of R = ``core`` layers, with P = ``prelude`` layers before and C = ``coda`` behind."""

    recurrences: int
    prelude: int
    coda: int
    core: int

    def theory(self, kept: int) -> float:
        """Return how many times the denoiser's FLOPs backprop through the last K′ = ``kept`` applications takes.

        In units of a layer's forward, a backward being two: (P + K·R + C) + 2·(P + K′·R + C) over 3·(P + R + C).
        Embedding, head and the map that takes the input in are left out.
        """
        around = self.prelude + self.coda
        unrolled = 3 * around + (self.recurrences + 2 * kept) * self.core
        return unrolled / (3 * (around + self.core))


def shape_of(configuration: Configuration) -> Shape | None:
    """Return the shape of a network of recurrent depth, None for another network or a size that is not known."""
    record = configuration.records[0]
    network = record.cell.get("network")
    if record.row.network != "recurrent" or not isinstance(network, dict):
        return None
    named = dict(zip(SHAPE, SIZES.get(record.row.network_size, ()), strict=False))
    given = {key: network[key] for key in SHAPE if isinstance(network.get(key), int)}
    found: dict[str, int] = named | given
    return Shape(**found, core=record.row.depth) if len(found) == len(SHAPE) else None


def unrolled(run: Run, configuration: Configuration, shape: Shape) -> Iterator[tuple[Configuration, int]]:
    """Yield each finished backprop on the same work and of the same shape, with its K′, the most first."""
    reference = run.reference(configuration)
    found = []
    for other in run.configurations:
        same = other.records[0].row.method == "backprop" and run.reference(other) is reference
        if same and other.finished and shape_of(other) == shape and other is not configuration:
            found.append((other, int(other.options.get("truncate") or shape.recurrences)))
    yield from sorted(found, key=lambda pair: -pair[1])
