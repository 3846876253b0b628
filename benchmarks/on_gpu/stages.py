"""The stages in their order."""

from __future__ import annotations

from importlib import import_module

from benchmarks.on_gpu.stage import Stage

#: A module each, which has ``STAGE``.
NAMES = ("machine", "gpu_tests", "ledger_truth", "estimates", "step_time", "learning")


def stage(name: str) -> Stage:
    """Return the stage; its module imports torch only in what it runs."""
    found: Stage = import_module(f"benchmarks.on_gpu.{name}").STAGE
    return found
