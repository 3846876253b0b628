"""The text of ``PYTORCH_ALLOC_CONF``: what is read, what is refused, and with which words."""

from __future__ import annotations

import pytest

from dbbench.errors import BadInput
from dbbench.measure.allocator_settings import MIB, AllocatorSettings

EVERYTHING = (
    "expandable_segments:True,large_segment_size_mb:32,max_split_size_mb:128,max_non_split_rounding_mb:64,"
    "roundup_power2_divisions:[256:1,512:2,>:8],garbage_collection_threshold:0.8,per_process_memory_fraction:0.9"
)


def test_nothing_is_the_default() -> None:
    """The default would not be torch's, or not be recognised in a table."""
    assert AllocatorSettings.parse("") == AllocatorSettings()
    assert AllocatorSettings().text() == ""
    assert AllocatorSettings().max_non_split_rounding_bytes == 20 * MIB


@pytest.mark.parametrize("text", [EVERYTHING, "roundup_power2_divisions:4", "roundup_power2_divisions:[>:8]"])
def test_what_is_written_is_what_was_read(text: str) -> None:
    """A report would name settings other than those it is of; 24 GiB are the device's, and in no text."""
    found = AllocatorSettings.parse(text, capacity_bytes=24 << 30)
    assert found.text() == text
    assert AllocatorSettings.parse(found.text(), found.capacity_bytes) == found


def test_blanks_order_and_a_last_comma_do_not_matter() -> None:
    """What torch reads would be refused."""
    found = AllocatorSettings.parse(" max_split_size_mb: 64 , expandable_segments:True,")
    assert found == AllocatorSettings(expandable_segments=True, max_split_size_mb=64)


@pytest.mark.parametrize(
    ("text", "table"),
    [
        ("4", [4] * 16),
        # the first bound is of 256 MiB = 2**8: entries 0 to 8; then 9; then all that is left
        ("[256:1,512:2,>:8]", [1] * 9 + [2] + [8] * 6),
        # what is not named stays off; bounds above 32 GiB are the last entry's
        ("[2:8,16:4]", [8, 8, 0, 0, 4] + [0] * 11),
        ("[1048576:2]", [2] * 16),
        ("[>:8]", [0] + [8] * 15),
        ("[]", [0] * 16),
    ],
)
def test_divisions_by_interval(text: str, table: list[int]) -> None:
    """Sizes would be rounded by their neighbour's number; the tables are torch's, read off its allocator."""
    assert list(AllocatorSettings.parse(f"roundup_power2_divisions:{text}").divisions()) == table


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("max_split_size:64", "did you mean 'max_split_size_mb'"),
        ("nonsense:1", "none of torch's"),
        ("backend:cudaMallocAsync", "not simulated"),
        ("pinned_use_background_threads:True", "does not change the device's bytes"),
        ("throw_on_cudamalloc_oom:True", "not simulated"),
        ("expandable_segments", "not a key, a colon and a value"),
        ("expandable_segments:", "not a key, a colon and a value"),
        ("max_split_size_mb:64,,expandable_segments:True", "not a key, a colon and a value"),
        ("expandable_segments:true", "True or False"),
        ("max_split_size_mb:abc", "whole number"),
        ("max_split_size_mb:-5", "whole number"),
        ("max_split_size_mb:19", "at least large_segment_size_mb, which is 20"),
        ("large_segment_size_mb:64,max_split_size_mb:40", "at least large_segment_size_mb, which is 64"),
        ("max_non_split_rounding_mb:19", "at least large_segment_size_mb"),
        ("large_segment_size_mb:10", "more than 10"),
        ("garbage_collection_threshold:0", "between 0 and 1"),
        ("garbage_collection_threshold:1.0", "between 0 and 1"),
        ("garbage_collection_threshold:half", "could not convert"),
        ("per_process_memory_fraction:1.5", "from 0 to 1"),
        ("per_process_memory_fraction:nan", "from 0 to 1"),
        ("roundup_power2_divisions:3", "power of two"),
        ("roundup_power2_divisions:0", "power of two"),
        ("roundup_power2_divisions:[256:3]", "power of two"),
        ("roundup_power2_divisions:[300:1]", "power of two"),
        ("roundup_power2_divisions:[0:1]", "power of two"),
        ("roundup_power2_divisions:[256:1", "bracket"),
        ("roundup_power2_divisions:[256]", "whole number"),
    ],
)
def test_what_torch_refuses_is_refused_in_one_line(text: str, words: str) -> None:
    """Somebody would read figures of settings that torch does not start with, or that were not simulated."""
    with pytest.raises(BadInput) as caught:
        AllocatorSettings.parse(text)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_settings_made_in_python_are_checked_too() -> None:
    """What the parser refuses could be made by hand."""
    with pytest.raises(BadInput, match="at least"):
        AllocatorSettings(max_split_size_mb=1)
    with pytest.raises(BadInput, match="power of two"):
        AllocatorSettings(roundup_power2_divisions=((256, 3),))
    with pytest.raises(BadInput, match="at least one byte"):
        AllocatorSettings(capacity_bytes=0)


def test_the_limit_is_a_share_of_the_device() -> None:
    """The limit would be there without a fraction, as it is not in torch, or without a device to be a share of."""
    assert AllocatorSettings.parse("per_process_memory_fraction:0.3", 1001).limit_bytes == 300
    assert AllocatorSettings.parse("", 1001).limit_bytes is None
    assert AllocatorSettings.parse("per_process_memory_fraction:0.3").limit_bytes is None
