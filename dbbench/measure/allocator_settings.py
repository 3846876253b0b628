"""What ``PYTORCH_ALLOC_CONF`` may say of CUDA memory, as torch 2.13 reads it.

Keys that move the device's bytes are settings here; torch's other keys are refused with the reason, so that nobody
believes that they were simulated. Checked against the parser in torch's own CUDA build.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from dbbench.errors import BadInput, did_you_mean

MIB = 1 << 20
#: Sizes are told apart by power of two for `AllocatorSettings.roundup_power2_divisions`: 1 MiB and less, 2 MiB, …
INTERVALS = 16
#: The bound of the list's last entry, which torch writes as ``>``: all sizes above the entry before.
ABOVE = 0

_ON_THE_HOST = "does not change the device's bytes (leave it out)"
_NOT_SIMULATED = {
    "backend": "is not simulated: the simulator follows torch's own allocator, backend:native",
    "throw_on_cudamalloc_oom": "is not simulated: a run that does not fit fails with it or without",
    "graph_capture_record_stream_reuse": "is not simulated: one stream, no CUDA graphs",
    **dict.fromkeys(
        (
            "release_lock_on_cudamalloc", "release_lock_on_hipmalloc", "pinned_use_cuda_host_register",
            "pinned_use_hip_host_register", "pinned_num_register_threads", "pinned_reserve_segment_size_mb",
            "pinned_use_background_threads", "pinned_free_catch_all", "pinned_max_round_threshold_mb",
            "pinned_max_cached_size_mb",
        ),
        _ON_THE_HOST,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class AllocatorSettings:
    """The caching allocator's switches under torch's names and in torch's units; the defaults are torch's.

    ``max_split_size_mb``: blocks of that size and more are never split (None: all are). ``max_non_split_rounding_mb``:
    how much larger than a request such a block may be (None: ``large_segment_size_mb``, as in torch).
    ``roundup_power2_divisions``: 0 is off; a number rounds every size up to one of that many steps between powers of
    two; pairs (MiB, divisions) do so by interval, the first also for what is smaller, and a bound of `ABOVE` (``>`` in
    torch's text) for all that is larger than the pair before it.

    ``capacity_bytes`` is the device's memory; None has no end. ``per_process_memory_fraction`` below 1 is the share of
    it that the allocator may reserve. ``garbage_collection_threshold`` is a share of that share: as in torch it does
    nothing unless a fraction below 1 is set, nor here without a capacity.

    Raises BadInput for a value that torch refuses.
    """

    expandable_segments: bool = False
    large_segment_size_mb: int = 20
    max_split_size_mb: int | None = None
    max_non_split_rounding_mb: int | None = None
    roundup_power2_divisions: int | tuple[tuple[int, int], ...] = 0
    garbage_collection_threshold: float = 0.0
    per_process_memory_fraction: float = 1.0
    capacity_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.large_segment_size_mb <= 10:
            raise BadInput(f"large_segment_size_mb:{self.large_segment_size_mb}: torch wants more than 10")
        for name in ("max_split_size_mb", "max_non_split_rounding_mb"):
            value = getattr(self, name)
            if value is not None and value < self.large_segment_size_mb:
                least = self.large_segment_size_mb
                raise BadInput(f"{name}:{value}: torch wants at least large_segment_size_mb, which is {least}")
        if not 0 <= self.garbage_collection_threshold < 1:
            raise BadInput(
                f"garbage_collection_threshold:{self.garbage_collection_threshold:g}: torch wants it between 0 and 1"
            )
        if not 0 <= self.per_process_memory_fraction <= 1:
            raise BadInput(
                f"per_process_memory_fraction:{self.per_process_memory_fraction:g}: torch wants it from 0 to 1"
            )
        if self.capacity_bytes is not None and self.capacity_bytes <= 0:
            raise BadInput(f"capacity_bytes {self.capacity_bytes}: a device has at least one byte")
        self._check_divisions()

    def _check_divisions(self) -> None:
        given = self.roundup_power2_divisions
        for bound, divisions in [(1, given)] if isinstance(given, int) else given:
            if divisions and not _is_power_of_two(divisions):
                raise BadInput(f"roundup_power2_divisions:{divisions}: torch wants a power of two")
            if bound != ABOVE and not _is_power_of_two(bound):
                raise BadInput(f"roundup_power2_divisions:[{bound}:{divisions}]: torch wants bounds of a power of two")

    @classmethod
    def parse(cls, text: str, capacity_bytes: int | None = None) -> Self:
        """Read torch's syntax: ``"expandable_segments:True,max_split_size_mb:128"``; blanks do not count.

        Raises BadInput, one line, for an unknown key, one that is not simulated, or a value that torch refuses.
        """
        found: dict[str, Any] = {}
        for key, value in _pairs("".join(text.split())):
            if key in _NOT_SIMULATED:
                raise BadInput(f"allocator setting '{key}' {_NOT_SIMULATED[key]}")
            if key not in _READERS:
                raise BadInput(f"allocator setting '{key}' is none of torch's{did_you_mean(key, _READERS)}")
            try:
                found[key] = _READERS[key](value)
            except ValueError as error:
                raise BadInput(f"allocator setting '{key}:{value}': {error}") from None
        return cls(**found, capacity_bytes=capacity_bytes)

    def text(self) -> str:
        """Return the settings in torch's syntax, those at their default left out; the capacity is none of torch's."""
        parts = []
        for name in _READERS:
            value = getattr(self, name)
            if value == type(self).__dataclass_fields__[name].default:
                continue
            if isinstance(value, tuple):
                value = "[" + ",".join(f"{bound or '>'}:{divisions}" for bound, divisions in value) + "]"
            parts.append(f"{name}:{value}")
        return ",".join(parts)

    @property
    def max_split_size_bytes(self) -> int | None:
        """The size from which blocks are not split, None for no such size."""
        return None if self.max_split_size_mb is None else self.max_split_size_mb * MIB

    @property
    def max_non_split_rounding_bytes(self) -> int:
        """How much larger than a request a block that is not split may be."""
        mebibytes = self.max_non_split_rounding_mb
        return MIB * (self.large_segment_size_mb if mebibytes is None else mebibytes)

    @property
    def limit_bytes(self) -> int | None:
        """What the allocator may reserve by its own account, None where only the device's memory ends it."""
        if self.capacity_bytes is None or self.per_process_memory_fraction == 1:
            return None
        return int(self.per_process_memory_fraction * self.capacity_bytes)

    def divisions(self) -> tuple[int, ...]:
        """Return the divisions by interval: entry i is for sizes from 2**i MiB on, the first also for smaller ones."""
        given = self.roundup_power2_divisions
        if isinstance(given, int):
            return (given,) * INTERVALS
        table, last = [0] * INTERVALS, 0
        for place, (bound, divisions) in enumerate(given):
            if bound == ABOVE:
                table[last + 1 :] = [divisions] * (INTERVALS - last - 1)
                continue
            last = min(bound.bit_length() - 1, INTERVALS - 1)
            if place == 0:
                table[:last] = [divisions] * last
            table[last] = divisions
        return tuple(table)


def _is_power_of_two(number: int) -> bool:
    return number > 0 and number & (number - 1) == 0


def _pairs(text: str) -> list[tuple[str, str]]:
    """Split at the commas outside brackets, and each part at its first colon; torch lets the text end in a comma."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter == "[") - (letter == "]")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    if parts[-1] == "":
        parts.pop()
    found = []
    for part in parts:
        key, colon, value = part.partition(":")
        if not colon or not value:
            raise BadInput(f"allocator settings '{text}': '{part}' is not a key, a colon and a value")
        found.append((key, value))
    return found


def _boolean(value: str) -> bool:
    if value not in ("True", "False"):
        raise ValueError("torch wants True or False")
    return value == "True"


def _whole(value: str) -> int:
    if not value.isdecimal():
        raise ValueError("a whole number is wanted")
    return int(value)


def _threshold(value: str) -> float:
    number = float(value)
    if not 0 < number < 1:  # 0, the default, cannot be written
        raise ValueError("torch wants it between 0 and 1, both excluded")
    return number


def _divisions(value: str) -> int | tuple[tuple[int, int], ...]:
    if not value.startswith("["):
        number = _whole(value)
        if number == 0:  # in a list it may stand
            raise ValueError("torch wants a power of two")
        return number
    if not value.endswith("]"):
        raise ValueError("the bracket is not closed")
    pairs = []
    for part in filter(None, value[1:-1].split(",")):
        bound, _, number_of = part.partition(":")
        pairs.append((ABOVE if bound == ">" else _whole(bound), _whole(number_of)))
        if pairs[-1][0] == ABOVE and bound != ">":
            raise ValueError("torch wants bounds of a power of two")
    return tuple(pairs)


_READERS: dict[str, Any] = {
    "expandable_segments": _boolean,
    "large_segment_size_mb": _whole,
    "max_split_size_mb": _whole,
    "max_non_split_rounding_mb": _whole,
    "roundup_power2_divisions": _divisions,
    "garbage_collection_threshold": _threshold,
    "per_process_memory_fraction": float,
}
