"""What the simulated caching allocator is made of: blocks, and the pools that hold the free ones.

Addresses are numbers of an address space of our own, in which every segment begins above all that came before it.
"""

from __future__ import annotations

from sortedcontainers import SortedList


class Level:
    """A number of bytes (or of segments) that rises and falls, and the most it was since `reset`."""

    __slots__ = ("current", "peak")

    def __init__(self) -> None:
        self.current = self.peak = 0

    def add(self, amount: int) -> None:
        """Rise, or with a negative amount fall."""
        self.current += amount
        if self.current > self.peak:
            self.peak = self.current

    def reset(self) -> None:
        """Forget the peak: what there is now is the most there was."""
        self.peak = self.current


class Expandable:
    """A range of addresses that memory is mapped into from its beginning on, a whole number of granules at a time."""

    __slots__ = ("address", "granule", "size")

    def __init__(self, address: int, size: int, granule: int) -> None:
        self.address, self.size, self.granule = address, size, granule


class Block:
    """A stretch of one segment, in use or free, between its neighbours ``before`` and ``after`` in that segment.

    ``requested`` are the bytes that were asked for. A block of an expandable range is ``mapped`` or only an address.
    ``filed_at`` is the pool's count of searches when the block was last filed as free.
    """

    __slots__ = (
        "address",
        "after",
        "before",
        "expandable",
        "filed_at",
        "in_use",
        "mapped",
        "pool",
        "requested",
        "size",
    )

    def __init__(self, address: int, size: int, pool: Pool, expandable: Expandable | None = None) -> None:
        self.address, self.size, self.pool, self.expandable = address, size, pool, expandable
        self.requested = self.filed_at = 0
        self.in_use = False
        self.mapped = True
        self.before: Block | None = None
        self.after: Block | None = None

    @property
    def whole(self) -> bool:
        """Whether the block is all of its segment, so that the segment can go back to the device."""
        return self.before is None and self.after is None

    @property
    def reach(self) -> int:
        """The size it could grow to: with the unmapped addresses right behind it."""
        after = self.after
        return self.size + (after.size if after is not None and not after.mapped else 0)

    def cut(self, size: int) -> Block:
        """Keep the first ``size`` bytes and return a new block of the rest."""
        rest = Block(self.address + size, self.size - size, self.pool, self.expandable)
        rest.mapped = self.mapped
        rest.before, rest.after = self, self.after
        if rest.after is not None:
            rest.after.before = rest
        self.after, self.size = rest, size
        return rest

    def absorb_neighbours(self) -> None:
        """Take in the neighbours that are free and as mapped as this one, which must not itself be filed."""
        for other in (self.before, self.after):
            if other is None or other.in_use or other.mapped != self.mapped:
                continue
            self.pool.take(other)
            if other is self.before:
                self.address, self.before = other.address, other.before
                if self.before is not None:
                    self.before.after = self
            else:
                self.after = other.after
                if self.after is not None:
                    self.after.before = self
            self.size += other.size


class Pool:
    """The free blocks of one kind of request: ``free`` by size, then address; ``unmapped`` by address.

    The lists hold (size, address, block) and (address, block); no two entries agree up to the block. ``searches``
    counts the requests, which is what the age of a free block is measured in.
    """

    __slots__ = ("free", "searches", "small", "unmapped")

    def __init__(self, small: bool) -> None:
        self.small = small
        self.free: SortedList[tuple[int, int, Block]] = SortedList()
        self.unmapped: SortedList[tuple[int, Block]] = SortedList()
        self.searches = 0

    def file(self, block: Block) -> None:
        """Add a block that is not in use."""
        if block.mapped:
            block.filed_at = self.searches
            self.free.add((block.size, block.address, block))
        else:
            self.unmapped.add((block.address, block))

    def take(self, block: Block) -> None:
        """Remove a block that was filed, before anything about it changes."""
        if block.mapped:
            self.free.remove((block.size, block.address, block))
        else:
            self.unmapped.remove((block.address, block))
