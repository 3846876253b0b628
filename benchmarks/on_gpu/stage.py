"""What a stage is: a name, items in order of worth, and a function that does one of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Result = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """Where the stages run. On ``cpu`` every size is a toy's."""

    device: Literal["cuda", "cpu"]
    out: Path

    @property
    def toy(self) -> bool:
        return self.device == "cpu"

    def log(self, stage: str) -> Path:
        """Return where the stage of that name notes what it has done."""
        return self.out / "stages" / f"{stage}.jsonl"


@dataclass(frozen=True)
class Stage:
    """One stage. ``share`` is its part of the whole time; an item that takes ``item_seconds`` is ended.

    ``items`` names what there is to do, the most valuable first; ``run`` does one and returns plain data.
    """

    name: str
    title: str
    share: float
    item_seconds: float
    items: Callable[[Setting], list[str]]
    run: Callable[[str, Setting], Result]
