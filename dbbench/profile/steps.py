"""Several steps of one's own, each profiled once and as lightly as can be: what the gate holds against a baseline."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from dbbench.errors import BadInput
from dbbench.profile import hugging_face
from dbbench.profile.command import Order, Where, trace_step
from dbbench.profile.target import Target
from dbbench.results.profile import Profile, read_profile


def require_steps(targets: Sequence[str], settings: Mapping[str, Any]) -> None:
    """Raise BadInput where one of ``targets`` leads nowhere; nothing is measured."""
    for target in targets:
        if Path(target).is_dir():
            read_profile(Path(target))
        else:
            Target(named(target, settings))


def profiled(
    targets: Sequence[str], device: Where, settings: Mapping[str, Any]
) -> Iterator[tuple[str, Profile | None, pd.DataFrame | None, str]]:
    """Yield (name, profile, classified events, why it failed) of each target: a step, or a saved profile's folder.

    ``settings`` (batch, sequence, optimizer) are for models of transformers. A step that makes nothing that can be
    trained, or that fails, has failed; BadInput is for a name that leads nowhere, before the first is measured.
    """
    require_steps(targets, settings)
    for target in targets:
        if Path(target).is_dir():
            profile, frame = read_profile(Path(target))
            yield f"profile:{profile.name}", profile, frame, profile.ended_early or ""
            continue
        name = named(target, settings)
        try:
            outcome = trace_step(Target(name), Order(device=device))
        except BadInput as error:  # it is there, and makes nothing that can be trained
            yield name, None, None, str(error).removeprefix(f"{name}: ")
        else:
            yield name, outcome.profile, outcome.frame, outcome.failure or ""


def named(target: str, settings: Mapping[str, Any]) -> str:
    """Return a target as its cell is named: a model of transformers with all of its settings."""
    return hugging_face.completed(target, settings) if hugging_face.is_reference(target) else target
