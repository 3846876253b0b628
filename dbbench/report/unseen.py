"""What a ledger could not see, in words: printed before any figure that it makes too small."""

from __future__ import annotations

from collections.abc import Mapping

from dbbench.report import text

#: Work that may well use no memory that anybody wants measured: a note, where other blind spots spoil the figures.
_HARMLESS = ("child process",)


def unseen_warnings(unseen_bytes: int | None, unmeasured_work: Mapping[str, int]) -> list[str]:
    """Return a line for the bytes that were made out of sight, and one for each kind of work that was not measured."""
    return [*blind_spots(unseen_bytes, unmeasured_work), *notes(unmeasured_work)]


def blind_spots(unseen_bytes: int | None, unmeasured_work: Mapping[str, int]) -> list[str]:
    """Return those of the lines that make figures too small to be held against anything."""
    found = []
    if unseen_bytes:
        found.append(
            f"{text.mib(unseen_bytes)} MiB ({unseen_bytes:,} bytes) were made where the ledger could not see them, on "
            "a thread that it cannot follow or before it opened: the true peak may be higher, and FLOPs are missing"
        )
    return found + [_left(what, times) for what, times in sorted(unmeasured_work.items()) if what not in _HARMLESS]


def notes(unmeasured_work: Mapping[str, int]) -> list[str]:
    """Return the lines that are for information."""
    return [_left(what, times) for what, times in sorted(unmeasured_work.items()) if what in _HARMLESS]


def _left(what: str, times: int) -> str:
    plural = what.replace("process", "processes").replace("replay", "replays") if times > 1 else what
    return f"{times} {plural} in the step: nothing of that is in any figure"
