"""The caching allocator's rules once more, as plainly as they can be said: lists of pieces, and every search a scan.

It is the oracle of `tests/measure/test_allocator_oracle.py`. Nothing is shared with the simulator but its settings.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dbbench.measure.allocator_settings import AllocatorSettings

KIB, MIB = 1 << 10, 1 << 20


@dataclass
class Piece:
    """``state`` is used, free, or hole: addresses of an expandable segment without memory."""

    size: int
    state: str
    requested: int = 0


@dataclass
class Segment:
    serial: int
    small: bool
    granule: int | None
    pieces: list[Piece]
    last_free: int = 0

    def free(self) -> list[tuple[int, int, int, Segment]]:
        """Return (size, serial, offset, self) of the free pieces."""
        found, offset = [], 0
        for piece in self.pieces:
            if piece.state == "free":
                found.append((piece.size, self.serial, offset, self))
            offset += piece.size
        return found

    def at(self, offset: int) -> int:
        """Return the index of the piece that begins at ``offset``."""
        here = 0
        for index, piece in enumerate(self.pieces):
            if here == offset:
                return index
            here += piece.size
        raise AssertionError(offset)

    def tidy(self) -> None:
        """Join what is free with what is free, and holes with holes."""
        joined: list[Piece] = []
        for piece in self.pieces:
            if joined and piece.state != "used" and joined[-1].state == piece.state:
                joined[-1].size += piece.size
            elif piece.size:
                joined.append(piece)
        self.pieces = joined


def up(value: int, step: int) -> int:
    return (value + step - 1) // step * step


@dataclass
class Naive:
    settings: AllocatorSettings
    segments: list[Segment] = field(default_factory=list)
    born: int = 0
    retries: int = 0
    searches: dict[bool, int] = field(default_factory=lambda: {True: 0, False: 0})

    def total(self, *states: str) -> int:
        return sum(p.size for s in self.segments for p in s.pieces if p.state in states)

    @property
    def figures(self) -> tuple[int, int, int, int]:
        """(allocated, reserved, requested, retries)"""
        requested = sum(p.requested for s in self.segments for p in s.pieces)
        return self.total("used"), self.total("used", "free"), requested, self.retries

    def rounded(self, nbytes: int) -> int:
        table, given = {}, self.settings.roundup_power2_divisions
        if isinstance(given, int):
            table = dict.fromkeys(range(16), given)
        else:
            for index, (bound, divisions) in enumerate(given):
                if bound:
                    last = min([i for i in range(16) if 2**i >= bound] or [15])
                    below = range(last + 1) if index == 0 else [last]
                else:
                    below = range((last + 1) if index else 1, 16)
                table |= dict.fromkeys(below, divisions)
        interval = max([i for i in range(16) if nbytes >= 2**i * MIB] or [0])
        divisions = table.get(interval, 0)
        if divisions < 2 or nbytes <= 512 * divisions:
            return max(512, up(nbytes, 512))
        power = 1
        while power * 2 <= nbytes:
            power *= 2
        return up(nbytes, power // divisions)

    def malloc(self, nbytes: int) -> tuple[Segment, Piece] | None:
        """Return a handle, None where it does not fit."""
        size = self.rounded(nbytes)
        small = size <= MIB
        self.searches[small] += 1
        spot = self.best(small, size)
        if spot is None:
            self.collect()
            spot = self.grow(small, size)
        if spot is None and self.give_back_large(small, size):
            spot = self.grow(small, size)
        if spot is None:
            self.give_back_all()
            self.retries += 1
            spot = self.grow(small, size)
        if spot is None:
            return None
        segment, offset = spot
        index = segment.at(offset)
        piece = segment.pieces[index]
        left = piece.size - size
        unsplit = self.settings.max_split_size_mb
        if small or self.settings.expandable_segments:
            split = left >= 512
        else:
            split = left > MIB and (unsplit is None or size < unsplit * MIB)
        if split:
            piece.size = size
            segment.pieces.insert(index + 1, Piece(left, "free"))
        piece.state, piece.requested = "used", nbytes
        return segment, piece

    def free(self, handle: tuple[Segment, Piece]) -> None:
        segment, piece = handle
        piece.state, piece.requested = "free", 0
        segment.last_free = self.searches[segment.small]
        segment.tidy()

    def cached(self, small: bool) -> list[tuple[int, int, int, Segment]]:
        return sorted((f for s in self.segments if s.small == small for f in s.free()), key=lambda f: f[:3])

    def best(self, small: bool, size: int) -> tuple[Segment, int] | None:
        fits = [f for f in self.cached(small) if f[0] >= size]
        if not fits:
            return None

        def reach(found: tuple[int, int, int, Segment]) -> int:
            _, _, offset, segment = found
            after = segment.pieces[segment.at(offset) + 1 :]
            return found[0] + (after[0].size if after and after[0].state == "hole" else 0)

        chosen = 0
        while (
            self.settings.expandable_segments
            and chosen + 1 < len(fits)
            and reach(fits[chosen + 1]) < reach(fits[chosen])
        ):
            chosen += 1
        found, _, offset, segment = fits[chosen]
        if self.settings.max_split_size_mb is not None:
            unsplit = self.settings.max_split_size_mb * MIB
            slack = (self.settings.max_non_split_rounding_mb or self.settings.large_segment_size_mb) * MIB
            if size < unsplit <= found or (size >= unsplit and found >= size + slack):
                return None
        return segment, offset

    def fits_device(self, more: int) -> bool:
        capacity = self.settings.capacity_bytes
        return capacity is None or self.total("used", "free") + more <= capacity

    def grow(self, small: bool, size: int) -> tuple[Segment, int] | None:
        settings = self.settings
        large = settings.large_segment_size_mb * MIB
        want = 2 * MIB if small else large if size < 10 * MIB else up(size, 2 * MIB)
        fraction = settings.per_process_memory_fraction
        limit = None if settings.capacity_bytes is None or fraction == 1 else int(settings.capacity_bytes * fraction)
        if limit is not None and self.total("used", "free") + want > limit:
            return None
        if settings.expandable_segments:
            return self.expand(small, size, 2 * MIB if small else large)
        if not self.fits_device(want):
            return None
        self.born += 1
        self.segments.append(Segment(self.born, small, None, [Piece(want, "free")]))
        return self.segments[-1], 0

    def expand(self, small: bool, size: int, granule: int) -> tuple[Segment, int] | None:
        for segment in self.segments:
            run = start = offset = 0
            hole = False
            for piece in segment.pieces if segment.small == small else []:
                if piece.state == "used":
                    run, hole, start = 0, False, offset + piece.size
                else:
                    run += piece.size
                    hole = hole or piece.state == "hole"
                offset += piece.size
                if hole and run >= size:
                    return self.fill(segment, start, size)
        memory = self.settings.capacity_bytes or 1 << 46
        self.born += 1
        self.segments.append(Segment(self.born, small, granule, [Piece(up(memory + memory // 8, granule), "hole")]))
        return self.fill(self.segments[-1], 0, size)

    def fill(self, segment: Segment, start: int, size: int) -> tuple[Segment, int] | None:
        """Turn the holes of the run at ``start`` into free memory until it has ``size`` bytes of that."""
        assert segment.granule is not None
        index = segment.at(start)
        while True:
            run = 0
            while index < len(segment.pieces) and segment.pieces[index].state == "free":
                run += segment.pieces[index].size
                index += 1
            if run >= size:
                segment.tidy()
                return segment, start
            hole = segment.pieces[index]
            more = up(min(size - run, hole.size), segment.granule)
            if not self.fits_device(more):
                segment.tidy()
                return None
            hole.size -= more
            segment.pieces.insert(index, Piece(more, "free"))
            if not hole.size:
                del segment.pieces[index + 1]
            index = segment.at(start)

    def whole(self, small: bool) -> list[Segment]:
        free = [s for s in self.segments if s.granule is None and s.small == small]
        return [s for s in free if [p.state for p in s.pieces] == ["free"]]

    def give_back_large(self, small: bool, size: int) -> bool:
        if self.settings.max_split_size_mb is None:
            return False
        unsplit = self.settings.max_split_size_mb * MIB
        want = max(size, unsplit)
        cached = self.cached(small)
        enough = [f for f in cached if f[0] >= want]
        if enough and enough[0][3].granule is None:
            self.segments.remove(enough[0][3])
            return True
        released = 0
        for found, _, _, segment in reversed(cached[: len(cached) - len(enough)]):
            if released >= want or found < unsplit:
                break
            if segment.granule is None:
                released += found
                self.segments.remove(segment)
        return released >= want

    def give_back_all(self) -> None:
        for segment in self.whole(True) + self.whole(False):
            self.segments.remove(segment)
        for segment in list(self.segments):
            if segment.granule is None:
                continue
            pieces, offset = [], 0
            for piece in segment.pieces:
                begin = min(up(offset, segment.granule), offset + piece.size)
                end = max((offset + piece.size) // segment.granule * segment.granule, begin)
                if piece.state == "free":
                    after = offset + piece.size - end
                    pieces += [Piece(begin - offset, "free"), Piece(end - begin, "hole"), Piece(after, "free")]
                else:
                    pieces.append(piece)
                offset += piece.size
            segment.pieces = [p for p in pieces if p.size]
            segment.tidy()

    def collect(self) -> None:
        settings = self.settings
        fraction, capacity = settings.per_process_memory_fraction, settings.capacity_bytes
        if not settings.garbage_collection_threshold or capacity is None or fraction == 1:
            return
        target = self.total("used", "free") - int(settings.garbage_collection_threshold * int(capacity * fraction))
        while target > 0:
            ages = {s.serial: self.searches[False] - s.last_free for s in self.whole(False)}
            mean = sum(ages.values()) / len(ages) if ages else 0
            old = [s for s in self.whole(False) if ages[s.serial] >= mean]
            if not old:
                return
            for segment in old:
                target -= segment.pieces[0].size
                self.segments.remove(segment)
