"""A catalogue of training steps, and the allocator's own account of each: what the memory ledger is judged by.

`STEPS` maps a name to a `Kind`; `benchmarks.ledger_steps.truth` runs one under the profiler and the ledger.
"""

from __future__ import annotations

from benchmarks.ledger_steps import (  # noqa: F401  importing a theme registers its kinds
    autograd,
    borrowed,
    checkpoints,
    kernels,
    loops,
    modules,
    networks,
    optimizers,
    precision,
    storages,
    wrappers,
)
from benchmarks.ledger_steps.catalogue import LIMITS, STEPS, Kind, Setup

__all__ = ["LIMITS", "STEPS", "Kind", "Setup"]
