"""The one error a user's own mistake raises, and the search for the name they meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BadInput(Exception):
    """Something the user gave cannot be used. Its text is one line; the command line exits with status 2.

    The line names the file, the key, what is wrong there and, where there is one, the nearest valid name.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class Diverged(Exception):
    """A loss, a parameter or a figure of merit is no finite number; the text says which, and when it was first seen."""


class BrokenContract(Exception):
    """What a method does, or says of itself, is not what the contract asks; the text says which. The cell fails."""


class WorkerDied(Exception):
    """A process that was to answer ended before it did. Its text is one line; the command line exits with status 1."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the nearest of ``known``, else the whole list of them."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if close:
        return f" (did you mean '{close[0]}'?)"
    return f" (known: {', '.join(names)})" if names else ""
