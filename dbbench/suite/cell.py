"""A cell: one variant of a suite at one seed and one point of the grid, with everything resolved but defaults of
the method, task and network themselves (their own rooms fill those in)."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from dbbench.limits import Layers

Strict = ConfigDict(extra="forbid", strict=True)


class TaskChoice(BaseModel):
    """A task by name, and that task's own options beside it."""

    model_config = ConfigDict(extra="allow", strict=True)
    name: str


class NetworkChoice(BaseModel):
    """A network by name and size; ``depth`` is the dial, ``None`` takes the preset's; other keys are its options."""

    model_config = ConfigDict(extra="allow", strict=True)
    name: str
    size: str = "tiny"
    depth: Layers | None = None


class OptimizerChoice(BaseModel):
    """AdamW with its implementation pinned, and the learning rate's course over the budget.

    The rate rises linearly over the first ``warmup`` (a fraction of the budget), then follows ``schedule`` down to
    ``final_fraction`` of ``lr``.
    """

    model_config = Strict
    name: Literal["adamw"] = "adamw"
    implementation: Literal["fused", "foreach", "single"] = "fused"
    lr: Annotated[float, Field(gt=0, le=10)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0, le=1000)] = 0.01
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    schedule: Literal["constant", "cosine"] = "cosine"
    warmup: Annotated[float, Field(ge=0, le=1)] = 0.05
    final_fraction: Annotated[float, Field(ge=0, le=1)] = 0.0


#: The least and the most of a budget that is no count of steps.
BUDGETS = {"seconds": (1e-3, 1e9)}


class Budget(BaseModel):
    """What every variant has equal. ``value`` counts layer updates, samples, FLOPs or seconds."""

    model_config = Strict
    kind: Literal["layer_updates", "samples", "flops", "seconds"]
    value: Annotated[float, Field(gt=0, le=1e30)]

    @field_validator("value")
    @classmethod
    def _of_its_kind(cls, value: float, info: ValidationInfo) -> float:
        least, most = BUDGETS.get(info.data.get("kind", ""), (0, math.inf))
        if not least <= value <= most:
            raise ValueError(f"must be {least:g} to {most:g} for {info.data['kind']}, not {value:g}")
        return value


class Cell(BaseModel):
    """One process's work. ``options`` are the method's own, as the suite gives them."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    suite: str
    variant: str
    method: str
    options: dict[str, Any]
    task: TaskChoice
    network: NetworkChoice
    optimizer: OptimizerChoice
    precision: Literal["fp32", "bf16", "autocast_bf16"]
    budget: Budget
    batch_size: int
    seed: int
    threads: int
    evaluations: int
    timeout_seconds: float
    final_split: Literal["validation", "test"] = "test"
    device: Literal["cpu", "cuda"] = "cpu"

    def config_hash(self, dataset_sha256: str, torch_version: str, schema_version: int, device_class: str) -> str:
        """Return 16 hex digits that name this cell's results.

        They cover all that can change a deterministic figure: the cell, its data, torch's minor version, the class
        of the device and the record's schema. The suite's name, its timeout and the number of threads' neighbours
        do not enter.
        """
        minor = ".".join(torch_version.split("+")[0].split(".")[:2])
        body = self.model_dump(mode="json", exclude={"suite", "timeout_seconds"})
        parts = [body, dataset_sha256, minor, schema_version, device_class]
        text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]
