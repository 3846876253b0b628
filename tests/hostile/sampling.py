"""Of thousands of generated cases CI tries a sample, always the same; all of them with ``DBBENCH_EVERY_CASE=1``."""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from typing import TypeVar

EVERY = bool(os.environ.get("DBBENCH_EVERY_CASE"))
Case = TypeVar("Case", bound=tuple[str, ...])


def sample(cases: Sequence[Case], one_in: int) -> list[Case]:
    """Return about one in ``one_in`` of the cases; their own words decide which, so that a new one changes no other."""
    return [case for case in cases if EVERY or zlib.crc32(" ".join(case).encode()) % one_in == 0]
