"""What a stage has done so far: one line of JSON for every item begun, ended or cut off.

A line that a kill tore in two is skipped on reading, and the next line starts on its own.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: An item that the time ran out on is tried again, so often.
TRIES = 2


@dataclass
class Log:
    """The log of one stage. ``ended`` maps an item to its last line, which has ``result`` or ``error``."""

    path: Path
    ended: dict[str, dict[str, Any]] = field(default_factory=dict)
    running: str | None = None
    began_at: float = 0.0
    cuts: dict[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Log:
        """Read the log, which need not exist."""
        log = cls(path)
        for line in path.read_bytes().splitlines() if path.exists() else ():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            key = entry["item"]
            if entry["what"] == "begin":
                log.running, log.began_at = key, entry["at"]
            elif entry["what"] == "cut":
                log.cuts[key] = log.cuts.get(key, 0) + 1
                log.running = None
                if log.cuts[key] >= TRIES:
                    log.ended[key] = {"error": f"not finished within its time, in {TRIES} tries"}
            else:
                log.ended[key] = entry
                log.running = None
        return log

    def left(self, items: list[str]) -> list[str]:
        """Return the items that have no end yet."""
        return [item for item in items if item not in self.ended]


def note(path: Path, what: str, item: str, **more: Any) -> None:
    """Add a line to the log at ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    body = json.dumps({"what": what, "item": item, **more}).encode() + b"\n"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            body = b"\n" + body
        os.write(descriptor, body)
    finally:
        os.close(descriptor)
