"""Sizes of memory as people write them: ``24GiB``, ``80 MiB``, ``80GB``, ``1.5 GiB``, ``4096``, or an int of bytes."""

from __future__ import annotations

import re

from dbbench.errors import BadInput, did_you_mean

UNITS = {
    "B": 1,
    **{f"{prefix}iB": 2 ** (10 * power) for power, prefix in enumerate("KMGT", 1)},
    **{f"{prefix}B": 10 ** (3 * power) for power, prefix in enumerate("KMGT", 1)},
}
_BY_CASE = {unit.lower(): unit for unit in UNITS}
_MOST_BYTES = 2**60


def parse_size(text: str | int, where: str, least: int = 1) -> int:
    """Return the bytes that ``text`` says, a fraction of a byte rounded down; a bare number says bytes.

    Binary units (KiB, MiB, GiB, TiB) are powers of 1,024 and decimal ones (KB, MB, GB, TB) of 1,000, in any case.
    Raises BadInput, opened by ``where`` (the option), for anything else, and for a size that is not between ``least``
    and an exbibyte.
    """
    if isinstance(text, int) and not isinstance(text, bool):
        text = str(text)
    elif not isinstance(text, str):
        raise BadInput(f"{where}: {text!r:.40} is no size; write one such as '512 MiB', or a whole number of bytes")
    parts = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    if parts is None:
        raise BadInput(f"{where}: '{text:.40}' is no size; write one such as 24GiB, 512MiB or 80GB")
    number, unit = parts.groups()
    known = _BY_CASE.get((unit or "B").lower())
    if known is None:
        raise BadInput(f"{where}: unknown unit '{unit:.40}'{did_you_mean(unit, UNITS)}")
    whole, _, fraction = number.partition(".")
    size = (int(whole + fraction) * UNITS[known]) // 10 ** len(fraction)  # exact, where a float would round
    if not least <= size <= _MOST_BYTES:
        raise BadInput(f"{where}: {text.strip():.40} is not between {least} B and 1,048,576 TiB")
    return size
