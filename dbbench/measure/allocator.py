"""A simulation of torch's caching allocator for CUDA: allocated and reserved bytes of a run that never saw a GPU.

One device, one stream, no graph capture. The rules are those of `c10/cuda/CUDACachingAllocator.cpp` in torch 2.13:

- A request is rounded up to 512 bytes, or to a division of a power of two. Up to 1 MiB it is of the small pool, else
  of the large one.
- It gets the smallest free block of its pool that is large enough, of equals the one of the lowest address.
- Where there is none it gets a new segment: 2 MiB for the small pool, 20 MiB for a large request below 10 MiB, else
  its own size rounded up to 2 MiB.
- What a block has left over becomes a free block: from 512 bytes on in the small pool (and in expandable segments),
  above 1 MiB in the large one. A block that is freed joins its free neighbours.
- Where the device refuses, cached segments go back to it: first large ones, as far as needed (only with a
  ``max_split_size_mb``), then all that are free as a whole; the request fails if even then there is no room.

The device hands out addresses that only rise. A real one may give an address again, which can matter where two free
blocks are of equal size, and nowhere else.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from dbbench.measure.allocator_blocks import Block, Expandable, Level, Pool
from dbbench.measure.allocator_settings import INTERVALS, MIB, AllocatorSettings
from dbbench.results.trace import Trace

SMALLEST_BLOCK = 512
SMALL_REQUEST = MIB
SMALL_SEGMENT = LARGE_ROUNDING = 2 * MIB
OWN_SEGMENT = 10 * MIB
#: What stands for the device's memory where a capacity is not given: more addresses than any has.
_NO_END = 1 << 46


class OutOfMemory(Exception):
    """The device has no room for a request, nor would it have with every cached segment given back."""

    def __init__(self, nbytes: int) -> None:
        super().__init__(f"out of memory: {nbytes:,} bytes more do not fit")
        self.nbytes = nbytes


class CachingAllocator:
    """The allocator of one device. ``requested``, ``allocated``, ``reserved`` (bytes) and ``segments`` are `Level`s.

    ``retries`` counts how often the whole cache had to be given back, successful or not: torch's ``num_alloc_retries``.
    """

    def __init__(self, settings: AllocatorSettings = AllocatorSettings()) -> None:  # noqa: B008
        self.settings = settings
        self.requested, self.allocated, self.reserved, self.segments = Level(), Level(), Level(), Level()
        self.retries = 0
        self.small, self.large = Pool(small=True), Pool(small=False)
        self._next_address = LARGE_ROUNDING
        self._divisions = settings.divisions()
        self._unsplit_from = settings.max_split_size_bytes
        self._limit = settings.limit_bytes
        threshold = settings.garbage_collection_threshold
        self._collect_above = None if self._limit is None or threshold == 0 else int(threshold * self._limit)

    @property
    def requested_bytes(self) -> int:
        """The bytes asked for that are in use."""
        return self.requested.current

    @property
    def allocated_bytes(self) -> int:
        """The bytes of the blocks in use."""
        return self.allocated.current

    @property
    def reserved_bytes(self) -> int:
        """The bytes held of the device's memory, in use or cached."""
        return self.reserved.current

    # -- requests -----------------------------------------------------------------------------------------------

    def malloc(self, nbytes: int) -> Block | None:
        """Return a block of at least ``nbytes``, None for none; raises OutOfMemory, with the cache given back."""
        if nbytes == 0:
            return None
        size = self.rounded(nbytes)
        pool = self.small if size <= SMALL_REQUEST else self.large
        block = self._cached(pool, size)
        if block is None:
            if self._collect_above is not None:
                self._collect_garbage(self._collect_above)
            block = self._new(pool, size)
        if block is None:
            raise OutOfMemory(nbytes)
        if self._is_split(block, size):
            pool.file(block.cut(size))
        block.in_use, block.requested = True, nbytes
        self.allocated.add(block.size)
        self.requested.add(nbytes)
        return block

    def free(self, block: Block | None) -> None:
        """Take back what `malloc` gave."""
        if block is None:
            return
        self.allocated.add(-block.size)
        self.requested.add(-block.requested)
        block.in_use = False
        block.absorb_neighbours()
        block.pool.file(block)

    def rounded(self, nbytes: int) -> int:
        """Return the size of block that ``nbytes`` ask for."""
        if nbytes < SMALLEST_BLOCK:
            return SMALLEST_BLOCK
        interval = min(max(nbytes.bit_length() - MIB.bit_length(), 0), INTERVALS - 1)
        divisions = self._divisions[interval]
        step = SMALLEST_BLOCK
        if divisions > 1 and nbytes > SMALLEST_BLOCK * divisions:
            step = (1 << (nbytes.bit_length() - 1)) // divisions
        return -(-nbytes // step) * step

    def _is_split(self, block: Block, size: int) -> bool:
        left = block.size - size
        if block.pool.small or self.settings.expandable_segments:
            return left >= SMALLEST_BLOCK
        return left > SMALL_REQUEST and (self._unsplit_from is None or size < self._unsplit_from)

    def _cached(self, pool: Pool, size: int) -> Block | None:
        """Take the best fitting free block out of the pool."""
        pool.searches += 1
        place = pool.free.bisect_left((size,))
        if place == len(pool.free):
            return None
        block = pool.free[place][2]
        if block.expandable is not None:
            # a block before unmapped addresses counts as large as it could grow, so that it is the last to be cut
            while place + 1 < len(pool.free) and pool.free[place + 1][2].reach < block.reach:
                place += 1
                block = pool.free[place][2]
        if self._unsplit_from is not None:
            if size < self._unsplit_from:
                if block.size >= self._unsplit_from:
                    return None
            elif block.size >= size + self.settings.max_non_split_rounding_bytes:
                return None
        del pool.free[place]
        return block

    # -- memory of the device -----------------------------------------------------------------------------------

    def _new(self, pool: Pool, size: int) -> Block | None:
        """Return a block of new memory, given back and asked for again where the device refuses; it is not filed."""
        block = self._from_device(pool, size)
        if block is None and self._release_unsplit(pool, size):
            block = self._from_device(pool, size)
        if block is None:
            self._release_all(self.large)
            self._release_all(self.small)
            self.retries += 1
            block = self._from_device(pool, size)
        return block

    def _segment_size(self, size: int) -> int:
        if size <= SMALL_REQUEST:
            return SMALL_SEGMENT
        if size < OWN_SEGMENT:
            return self.settings.large_segment_size_mb * MIB
        return -(-size // LARGE_ROUNDING) * LARGE_ROUNDING

    def _from_device(self, pool: Pool, size: int) -> Block | None:
        wanted = self._segment_size(size)
        if self._limit is not None and self.reserved.current + wanted > self._limit:
            return None
        if self.settings.expandable_segments:
            return self._expanded(pool, size)
        if not self._device_gives(wanted):
            return None
        self.segments.add(1)
        return Block(self._address(wanted), wanted, pool)

    def _device_gives(self, nbytes: int) -> bool:
        capacity = self.settings.capacity_bytes
        if capacity is not None and self.reserved.current + nbytes > capacity:
            return False
        self.reserved.add(nbytes)
        return True

    def _address(self, size: int) -> int:
        address = self._next_address
        self._next_address += -(-size // LARGE_ROUNDING) * LARGE_ROUNDING
        return address

    def _release(self, block: Block) -> None:
        """Give a whole free segment back to the device."""
        block.pool.take(block)
        self.reserved.add(-block.size)
        self.segments.add(-1)

    def _release_unsplit(self, pool: Pool, size: int) -> bool:
        """Give back blocks that are not split, one that is large enough or else the largest; tell if it was enough."""
        if self._unsplit_from is None:
            return False
        wanted = max(size, self._unsplit_from)
        place = pool.free.bisect_left((wanted,))
        if place < len(pool.free) and pool.free[place][2].expandable is None:
            self._release(pool.free[place][2])
            return True
        released = 0
        while released < wanted and place > 0:
            place -= 1
            block = pool.free[place][2]
            if block.size < self._unsplit_from:
                break
            if block.expandable is None:
                released += block.size
                self._release(block)
        return released >= wanted

    def _release_all(self, pool: Pool) -> None:
        """Give back whatever of the pool's free memory can be: whole segments, or granules of expandable ones."""
        for _, _, block in list(pool.free):
            if block.expandable is not None:
                self._unmap(block, block.expandable)
            elif block.whole:
                self._release(block)

    def _collect_garbage(self, threshold: int) -> None:
        """Give back old free segments while more than ``threshold`` bytes are reserved: those older than the mean."""
        pool, excess = self.large, self.reserved.current - threshold
        if excess <= 0:
            return
        freeable = [block for _, _, block in pool.free if block.whole]
        age = sum(pool.searches - block.filed_at for block in freeable)
        reclaimed, found = 0, True
        while reclaimed < excess and found and freeable:
            mean = age / len(freeable)
            old = [block for block in freeable if pool.searches - block.filed_at >= mean]
            freeable = [block for block in freeable if pool.searches - block.filed_at < mean]
            found = bool(old)
            for block in old:
                reclaimed += block.size
                age -= pool.searches - block.filed_at
                self._release(block)

    # -- expandable segments ------------------------------------------------------------------------------------

    def _expanded(self, pool: Pool, size: int) -> Block | None:
        """Map memory behind the free block of the lowest address that has room for ``size``, and return that block."""
        block = self._room(pool, size)
        if not block.mapped and not self._map(block, min(block.size, size)):
            return None
        while block.size < size:
            unmapped = block.after
            assert unmapped is not None
            if not self._map(unmapped, min(size - block.size, unmapped.size)):
                return None
            block = unmapped  # it has taken in the mapped block before it
        pool.take(block)
        return block

    def _room(self, pool: Pool, size: int) -> Block:
        """Return the first of the free blocks, mapped or not, that have ``size`` bytes of addresses between them."""
        for _, unmapped in pool.unmapped:
            first = unmapped
            if first.before is not None and not first.before.in_use:
                first = first.before
            found, block = 0, first
            while block is not None and not block.in_use and found < size:
                found += block.size
                block = block.after
            if found >= size:
                return first
        granule = SMALL_SEGMENT if pool.small else self.settings.large_segment_size_mb * MIB
        memory = self.settings.capacity_bytes or _NO_END
        length = -(-(memory + memory // 8) // granule) * granule
        block = Block(self._address(length), length, pool)
        block.expandable, block.mapped = Expandable(block.address, length, granule), False
        self.segments.add(1)
        pool.file(block)
        return block

    def _map(self, block: Block, size: int) -> bool:
        """Back the first ``size`` bytes of an unmapped block, whole granules of them, with memory; then it is filed."""
        assert block.expandable is not None
        granule = block.expandable.granule
        mapped = -(-size // granule) * granule
        if not self._device_gives(mapped):
            return False
        block.pool.take(block)
        if mapped < block.size:
            block.pool.file(block.cut(mapped))
        block.mapped = True
        block.absorb_neighbours()
        block.pool.file(block)
        return True

    def _unmap(self, block: Block, expandable: Expandable) -> None:
        """Give the whole granules of a free block back to the device."""
        granule, start = expandable.granule, block.address - expandable.address
        begin, end = -(-start // granule) * granule, (start + block.size) // granule * granule
        if begin >= end:
            return
        pool = block.pool
        pool.take(block)
        if begin > start:
            rest = block.cut(begin - start)
            pool.file(block)
            block = rest
        if end - begin < block.size:
            pool.file(block.cut(end - begin))
        self.reserved.add(begin - end)
        block.mapped = False
        block.absorb_neighbours()
        if block.whole:
            self.segments.add(-1)
        else:
            pool.file(block)


@dataclass(frozen=True)
class AllocatorPeaks:
    """What a trace would have taken on the device; bytes.

    The peaks are over the trace's windows of kind ``step``, what there is as one opens counted; ``segments`` likewise
    is the most that were held (an expandable one is one), and ``retries`` are the times that the whole cache was
    given back up to the end of the last one. Where a request did not fit, ``out_of_memory_at`` is its event,
    ``failed_bytes`` what it asked for, and the peaks are those until then.
    """

    requested_bytes: int
    allocated_bytes: int
    reserved_bytes: int
    segments: int
    retries: int
    out_of_memory_at: int | None = None
    failed_bytes: int | None = None


class _Replay:
    """Feeds a trace's events to an allocator, from what is alive at the trace's ``built`` on."""

    def __init__(self, trace: Trace, allocator: CachingAllocator) -> None:
        self.trace, self.allocator = trace, allocator
        self.blocks: dict[int, list[Block | None]] = {}
        self.position = trace.built

    def begin(self) -> None:
        """Allocate what is alive, in order of birth."""
        sizes = Counter(self.trace.before)
        for number, size in zip(self.trace.event_storage[: self.position], self.trace.event_bytes, strict=False):
            sizes[number] += size
        for number in sorted(sizes):
            if sizes[number] > 0:
                self.blocks[number] = [self.allocator.malloc(sizes[number])]

    def advance(self, end: int) -> None:
        """Apply the events before ``end``."""
        trace, allocator = self.trace, self.allocator
        while self.position < end:
            number, size = trace.event_storage[self.position], trace.event_bytes[self.position]
            if size > 0:
                self.blocks.setdefault(number, []).append(allocator.malloc(size))
            elif size < 0:
                # a resize allocates before it frees, so the older of two is the one that goes
                held = self.blocks[number]
                allocator.free(held.pop(0))
                if not held:
                    del self.blocks[number]
            self.position += 1


def replay(trace: Trace, settings: AllocatorSettings = AllocatorSettings()) -> AllocatorPeaks:  # noqa: B008
    """Return what ``trace`` would have taken of a CUDA device under ``settings``.

    It begins at ``trace.built``: what is alive then is allocated in order of birth in a fresh allocator (on an
    accelerator the host sets up and copies the result over), then every event follows, to the end of the last window.
    """
    allocator = CachingAllocator(settings)
    levels = {
        "requested_bytes": allocator.requested,
        "allocated_bytes": allocator.allocated,
        "reserved_bytes": allocator.reserved,
        "segments": allocator.segments,
    }
    peaks, retries, walk, failed = dict.fromkeys(levels, 0), 0, _Replay(trace, allocator), None
    try:
        walk.begin()
        for window in trace.windows:
            walk.advance(window.start)
            for level in levels.values():
                level.reset()
            try:
                walk.advance(window.end)
            finally:
                if window.kind == "step":
                    peaks = {name: max(peak, levels[name].peak) for name, peak in peaks.items()}
                    retries = allocator.retries
    except OutOfMemory as error:
        failed = error.nbytes
    at = None if failed is None else walk.position
    return AllocatorPeaks(**peaks, retries=retries, out_of_memory_at=at, failed_bytes=failed)
