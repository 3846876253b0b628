"""Marks that running code leaves for whoever measures it; without a listener they cost a list look-up.

A ledger infers forward, backward, recompute and optimizer by itself. What it cannot infer, such as a transfer of
parameters to the host, the code says: ``with phase("swap"): …``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: Called with a phase's name when it opens and with ``None`` when it closes.
listeners: list[Callable[[str | None], None]] = []


@contextmanager
def phase(name: str) -> Iterator[None]:
    """Mark what runs inside as belonging to phase ``name`` (one of `dbbench.results.roles.PHASES`)."""
    for listener in listeners:
        listener(name)
    try:
        yield
    finally:
        for listener in listeners:
            listener(None)
