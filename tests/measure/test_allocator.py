"""The caching allocator's rules, one test each, with figures worked out by hand."""

from __future__ import annotations

import pytest

from dbbench.measure.allocator import CachingAllocator, OutOfMemory
from dbbench.measure.allocator_blocks import Block
from dbbench.measure.allocator_settings import MIB, AllocatorSettings

KIB = 1 << 10


def allocator(text: str = "", capacity_bytes: int | None = None) -> CachingAllocator:
    return CachingAllocator(AllocatorSettings.parse(text, capacity_bytes))


def take(a: CachingAllocator, nbytes: int) -> Block:
    block = a.malloc(nbytes)
    assert block is not None
    return block


@pytest.mark.parametrize(
    ("nbytes", "size"), [(1, 512), (511, 512), (512, 512), (513, 1024), (5056, 5120), (3_000_000, 3_000_320)]
)
def test_sizes_are_rounded_up_to_512_bytes(nbytes: int, size: int) -> None:
    """Many small tensors would be counted as less than their blocks. 5,056 = 9.875 × 512; 3,000,000 = 5,859.4 × 512."""
    a = allocator()
    a.malloc(nbytes)
    assert (a.requested_bytes, a.allocated_bytes) == (nbytes, size)


@pytest.mark.parametrize(
    ("text", "nbytes", "size"),
    [
        # between 1,024 and 2,048 bytes there are steps of 512 already; above 4 × 512 bytes the steps count
        ("roundup_power2_divisions:4", 1_200, 1_536),
        ("roundup_power2_divisions:4", 2_049, 2_560),
        # 2 to 4 MiB in steps of 512 KiB: 5 MiB/2 is a step, one byte more goes to 3 MiB
        ("roundup_power2_divisions:4", 5 * MIB // 2, 5 * MIB // 2),
        ("roundup_power2_divisions:4", 5 * MIB // 2 + 1, 3 * MIB),
        # a power of two is its own step; one division is none
        ("roundup_power2_divisions:8", 4 * MIB, 4 * MIB),
        ("roundup_power2_divisions:1", 5 * MIB // 2 + 1, 5 * MIB // 2 + 512),
        # by interval: below 4 MiB 8 steps of 256 KiB, from 4 MiB on none, from 8 MiB on 2 steps of 4 MiB
        ("roundup_power2_divisions:[2:8,4:1,>:2]", 2 * MIB + 1, 2 * MIB + 256 * KIB),
        ("roundup_power2_divisions:[2:8,4:1,>:2]", 4 * MIB + 1, 4 * MIB + 512),
        ("roundup_power2_divisions:[2:8,4:1,>:2]", 8 * MIB + 1, 12 * MIB),
        # the first pair also covers what is smaller: 512 to 1,024 KiB in 8 steps of 64 KiB
        ("roundup_power2_divisions:[2:8,4:1,>:2]", 513 * KIB, 576 * KIB),
        # an interval that is not named is not rounded
        ("roundup_power2_divisions:[2:8,8:8]", 4 * MIB + 1, 4 * MIB + 512),
    ],
)
def test_power_of_two_divisions(text: str, nbytes: int, size: int) -> None:
    """The switch against fragmentation would be estimated without what it costs."""
    assert allocator(text).rounded(nbytes) == size


def test_small_and_large_requests_have_pools_of_their_own() -> None:
    """Small tensors would be cut from large segments: 1 MiB is the last small size, and rounding comes first.

    2 MiB for the first; 1 MiB + 1 byte is large and takes 20 MiB more; of two pools' free bytes neither serves the
    other: 512 KiB more come from the small segment, 2 MiB more from the large one.
    """
    a = allocator()
    a.malloc(MIB)
    assert a.reserved_bytes == 2 * MIB
    a.malloc(MIB + 1)
    assert a.reserved_bytes == 22 * MIB
    a.malloc(512 * KIB)
    a.malloc(2 * MIB)
    assert (a.reserved_bytes, a.segments.current) == (22 * MIB, 2)
    assert allocator().rounded(MIB - 100) == MIB  # small after rounding


@pytest.mark.parametrize(
    ("nbytes", "segment"),
    [
        (1, 2 * MIB),
        (MIB, 2 * MIB),
        (MIB + 1, 20 * MIB),
        (10 * MIB - 512, 20 * MIB),
        (10 * MIB - 511, 10 * MIB),  # rounded to 10 MiB, a size of its own
        (10 * MIB, 10 * MIB),
        (10 * MIB + 1, 12 * MIB),
        (33 * MIB, 34 * MIB),
    ],
)
def test_sizes_of_segments(nbytes: int, segment: int) -> None:
    """Reserved bytes would be wrong for every first request of a kind."""
    a = allocator()
    a.malloc(nbytes)
    assert a.reserved_bytes == segment


def test_the_size_of_large_segments_can_be_set() -> None:
    """``large_segment_size_mb`` would not count: 5 MiB take 64, 12 more of the same."""
    a = allocator("large_segment_size_mb:64")
    a.malloc(5 * MIB)
    assert a.reserved_bytes == 64 * MIB
    a.malloc(12 * MIB)
    assert a.reserved_bytes == 64 * MIB


def test_best_fit_takes_the_smallest_that_is_large_enough() -> None:
    """A first fit would cut large blocks first. Of free 30, 12 and 20 MiB, 11 MiB take the 12, then 15 the 20."""
    a = allocator()
    blocks = [take(a, size * MIB) for size in (30, 12, 20)]
    addresses = [block.address for block in blocks]
    for block in blocks:
        a.free(block)
    assert take(a, 11 * MIB).address == addresses[1]
    assert take(a, 15 * MIB).address == addresses[2]
    assert a.reserved_bytes == 62 * MIB


def test_of_equals_the_lowest_address_wins() -> None:
    """Two runs of one trace could leave other holes: freed in whatever order, the first segment is taken first."""
    a = allocator()
    first, second, third = (take(a, 12 * MIB) for _ in range(3))
    for block in (second, third, first):
        a.free(block)
    assert [take(a, 12 * MIB).address for _ in range(3)] == sorted(b.address for b in (first, second, third))


def test_a_small_block_is_split_down_to_512_bytes() -> None:
    """The small pool's remainders would go with the blocks: 1 MiB and 1 MiB − 512 bytes leave 512, which serve more."""
    a = allocator()
    a.malloc(MIB)
    assert take(a, MIB - 512).size == MIB - 512
    a.malloc(1)
    assert (a.allocated_bytes, a.reserved_bytes) == (2 * MIB, 2 * MIB)


def test_a_large_block_is_split_only_above_one_mebibyte() -> None:
    """Allocated would equal requested. 9 + 10 of 20 MiB leave 1 MiB, which goes with the second block: 11 MiB.

    With 512 bytes less asked for, more than 1 MiB is left, and it becomes a block of its own.
    """
    a = allocator()
    a.malloc(9 * MIB)
    a.malloc(10 * MIB - 512)
    assert a.allocated_bytes == 19 * MIB - 512
    a = allocator()
    a.malloc(9 * MIB)
    assert take(a, 10 * MIB).size == 11 * MIB
    assert (a.allocated_bytes, a.requested_bytes) == (20 * MIB, 19 * MIB)


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)])
def test_free_neighbours_join(order: tuple[int, ...]) -> None:
    """Freed memory would crumble. 5 + 6 + 9 MiB of one segment, freed in any order, serve 19 MiB without a new one."""
    a = allocator()
    blocks = [take(a, size * MIB) for size in (5, 6, 9)]
    for place in order:
        a.free(blocks[place])
    a.malloc(19 * MIB)
    assert a.reserved_bytes == 20 * MIB


def test_segments_do_not_join() -> None:
    """Memory of two allocations of the device would be taken for one: 12 + 12 MiB free do not serve 20."""
    a = allocator()
    for block in [take(a, 12 * MIB), take(a, 12 * MIB)]:
        a.free(block)
    a.malloc(20 * MIB)
    assert a.reserved_bytes == 44 * MIB


def test_nothing_takes_no_block() -> None:
    """Empty tensors would hold 512 bytes each."""
    a = allocator()
    block = a.malloc(0)
    a.free(block)
    assert (block, a.allocated_bytes, a.reserved_bytes) == (None, 0, 0)


def test_unsplit_blocks_serve_neither_small_requests_nor_much_smaller_ones() -> None:
    """``max_split_size_mb`` would change nothing. From 32 MiB on nothing is split, and 20 MiB of slack are allowed.

    Of a free 60 MiB block: 25 MiB are below the size and get a segment of their own (26). 40 MiB are not, and
    60 < 40 + 20 does not hold, so they too (40). 40 MiB + 512 bytes get the 60 MiB, whole.
    """
    a = allocator("max_split_size_mb:32")
    a.free(take(a, 60 * MIB))
    a.malloc(25 * MIB)
    assert a.reserved_bytes == (60 + 26) * MIB
    a.malloc(40 * MIB)
    assert a.reserved_bytes == (60 + 26 + 40) * MIB
    assert take(a, 40 * MIB + 512).size == 60 * MIB
    assert a.reserved_bytes == (60 + 26 + 40) * MIB


def test_the_slack_of_unsplit_blocks_can_be_set() -> None:
    """``max_non_split_rounding_mb`` would not count: with 30 MiB of slack 60 < 40 + 30, so 40 get all 60 MiB."""
    a = allocator("max_split_size_mb:32,max_non_split_rounding_mb:30")
    a.free(take(a, 60 * MIB))
    assert take(a, 40 * MIB).size == 60 * MIB


def test_what_is_left_of_an_unsplit_block_stays_with_it() -> None:
    """A request of ``max_split_size_mb`` and more has its segment to itself: 33 MiB take 34, though 1 MiB is left over.

    So does that size itself, of a cached 40. Below it, 30.5 MiB of a segment of 32 leave more than 1 MiB, which is cut
    off.
    """
    a = allocator("max_split_size_mb:32")
    a.free(take(a, 40 * MIB))
    assert take(a, 32 * MIB).size == 40 * MIB
    assert take(allocator("max_split_size_mb:32"), 33 * MIB).size == 34 * MIB
    assert take(allocator("max_split_size_mb:33"), 61 * MIB // 2).size == 61 * MIB // 2


def test_over_capacity_the_cache_is_given_back() -> None:
    """A run that fits would be said not to. 100 MiB hold 40 + 40; 50 more fit once the free 40 are given back."""
    a = allocator(capacity_bytes=100 * MIB)
    first = take(a, 40 * MIB)
    a.malloc(40 * MIB)
    a.free(first)
    a.malloc(50 * MIB)
    assert (a.reserved_bytes, a.retries) == (90 * MIB, 1)


def test_split_segments_cannot_be_given_back() -> None:
    """Memory would come back that a live block is in: 30 MiB, of which 2 are in use, stay; so 80 do not fit in 100."""
    a = allocator(capacity_bytes=100 * MIB)
    whole = take(a, 30 * MIB)
    a.free(whole)
    a.malloc(2 * MIB)
    with pytest.raises(OutOfMemory) as caught:
        a.malloc(80 * MIB)
    assert (caught.value.nbytes, a.reserved_bytes, a.retries) == (80 * MIB, 30 * MIB, 1)


def test_large_cached_segments_are_given_back_first_and_only_as_many_as_needed() -> None:
    """With ``max_split_size_mb`` a retry would be counted and the cache lost.

    A free 40, 50 and 34 MiB fill 124 of 130. For 80 MiB no free one is large enough, so from the largest on: 50 go,
    then 40 (90 ≥ 80); the 34 stay, and the whole cache was not given back.
    """
    a = allocator("max_split_size_mb:32", capacity_bytes=130 * MIB)
    for block in [take(a, size * MIB) for size in (40, 50, 34)]:
        a.free(block)
    a.malloc(80 * MIB)
    assert (a.reserved_bytes, a.retries) == ((34 + 80) * MIB, 0)


def test_garbage_is_collected_above_the_threshold_and_by_age() -> None:
    """``garbage_collection_threshold`` would change nothing, or everything would go.

    Limit: half of 400 MiB; threshold: half of that, 100. The first three searches make 30, 40 and 50 MiB: 120. The 30
    were freed after search 2, the 40 after search 3. Search 4, for 60 MiB, finds nothing, and 20 are too many: the ages
    are 2 and 1, their mean 1.5, so the 30 go and are enough.
    """
    a = allocator("garbage_collection_threshold:0.5,per_process_memory_fraction:0.5", capacity_bytes=400 * MIB)
    thirty, forty = take(a, 30 * MIB), take(a, 40 * MIB)
    a.free(thirty)
    a.malloc(50 * MIB)
    a.free(forty)
    a.malloc(60 * MIB)
    assert (a.reserved_bytes, a.retries) == ((40 + 50 + 60) * MIB, 0)


def test_without_a_fraction_garbage_is_not_collected() -> None:
    """Torch collects only under a limit of its own: the whole device is none, and the cache stays."""
    a = allocator("garbage_collection_threshold:0.1", capacity_bytes=400 * MIB)
    a.free(take(a, 100 * MIB))
    a.malloc(120 * MIB)
    assert a.reserved_bytes == 220 * MIB


def test_the_fraction_limits_what_is_reserved() -> None:
    """``per_process_memory_fraction`` would not count: of 100 MiB, half hold 40, and all 50 once those go."""
    a = allocator("per_process_memory_fraction:0.5", capacity_bytes=100 * MIB)
    block = take(a, 40 * MIB)
    with pytest.raises(OutOfMemory):
        a.malloc(20 * MIB)
    a.free(block)
    a.malloc(50 * MIB)
    assert (a.reserved_bytes, a.retries) == (50 * MIB, 2)


def test_an_expandable_segment_grows_by_granules() -> None:
    """Each large request would take a segment: 5 + 12 MiB are in one granule of 20, 30 more take two more granules.

    17 + 30 = 47 MiB of 60; the small pool has a segment of its own, in granules of 2 MiB.
    """
    a = allocator("expandable_segments:True")
    a.malloc(5 * MIB)
    assert a.reserved_bytes == 20 * MIB
    a.malloc(12 * MIB)
    assert a.reserved_bytes == 20 * MIB
    a.malloc(30 * MIB)
    assert (a.reserved_bytes, a.allocated_bytes) == (60 * MIB, 47 * MIB)
    a.malloc(MIB)
    assert (a.reserved_bytes, a.segments.current) == (62 * MIB, 2)


def test_expandable_segments_cut_to_512_bytes() -> None:
    """The large pool would keep up to 1 MiB with a block: of 20 MiB, 19.5 in use leave a block of 512 KiB."""
    a = allocator("expandable_segments:True")
    a.malloc(39 * MIB // 2)
    assert a.allocated_bytes == 39 * MIB // 2


def test_the_end_that_can_grow_is_the_last_choice() -> None:
    """The growing end would be cut while holes stay empty.

    In 40 MiB: 12, 4, 14 in use, 10 free at the end. The 12 go free: 9 MiB fit in the 10 at the end and in the 12, of
    which the smaller is the end's; but that one could grow without end, so the 12 are cut.
    """
    a = allocator("expandable_segments:True")
    first = take(a, 12 * MIB)
    a.malloc(4 * MIB)
    a.malloc(14 * MIB)
    assert a.reserved_bytes == 40 * MIB
    a.free(first)
    assert take(a, 9 * MIB).address == first.address


def test_whole_free_granules_are_unmapped_and_the_lowest_hole_is_filled_first() -> None:
    """Under pressure expandable segments would give nothing back.

    Capacity 200 MiB, granules of 20. 25, 30 and 5 MiB fill three. The first two are freed: 55 MiB, of whose granules
    0–20 and 20–40 are whole. 150 MiB behind the 5 need 160: 60 + 160 do not fit, 20 + 160 do. 16 MiB do not fit in the
    15 left at 40–55 nor in the 10 at the end; they get the granule at 0. Then 200 are reserved, and 16 more fail.
    """
    a = allocator("expandable_segments:True", capacity_bytes=200 * MIB)
    first, second, last = take(a, 25 * MIB), take(a, 30 * MIB), take(a, 5 * MIB)
    start = first.address
    a.free(second)
    a.free(first)
    big = take(a, 150 * MIB)
    assert (a.reserved_bytes, a.retries, big.address) == (180 * MIB, 1, last.address + 5 * MIB)
    assert take(a, 16 * MIB).address == start
    assert a.reserved_bytes == 200 * MIB
    with pytest.raises(OutOfMemory):
        a.malloc(16 * MIB)
