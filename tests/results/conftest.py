"""A record with a measured peak, whose fields a test replaces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dbbench.results.record import Held, MetricValue, Record, Row
from dbbench.results.roles import ROLES


def _record(name: str = "0123456789abcdef", held: list[Held] | None = None, **changes: Any) -> Record:
    roles = {role: (i + 1) * 1000 for i, role in enumerate(ROLES)}
    fields: dict[str, Any] = {
        "suite": "s",
        "task": "digits",
        "network": "vit",
        "variant": "backprop",
        "method": "backprop",
        "options_json": "{}",
        "seed": 0,
        "status": "ok",
        "config_hash": name,
        "network_size": "tiny",
        "depth": 6,
        "batch_size": 8,
        "precision": "fp32",
        "optimizer": "adamw",
        "optimizer_implementation": "fused",
        "learning_rate": 1e-3,
        "budget": "samples",
        "budget_value": 800.0,
        "threads": 1,
        "device": "cpu",
        "torch_version": "2.13.0+cpu",
        "dbbench_version": "0.1.0",
        "peak_bytes": sum(roles.values()),
        "samples": 800,
        "metric": "test_accuracy",
        "metric_value": 0.5,
    }
    row = Row(**(fields | {f"{role}_bytes": size for role, size in roles.items()} | changes))
    value = 0.5 if row.metric_value is None else row.metric_value
    metric = MetricValue(split="test", step=100, name="accuracy", value=value, unit="fraction", direction="higher")
    cell = {"variant": row.variant, "seed": row.seed, "network": {"depth": row.depth}, "timeout_seconds": 1.0}
    return Record(row=row, cell=cell, metrics=[metric], held_at_peak=held or [])


@pytest.fixture(scope="session")
def make_record() -> Callable[..., Record]:
    return _record
