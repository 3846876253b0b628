"""What changed between two peaks: nothing is lost, and the sentences say what a person would."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_profiles import MIB, Storage, frame_of, profile_of, transformer

from dbbench.report.diff import OLDER_NOTE, diff
from dbbench.results.profile import StepFigures
from dbbench.results.roles import ROLES

KEEPS = "input of gelu in layers.3.mlp.act"

STORAGES = st.lists(
    st.tuples(
        st.sampled_from(ROLES),
        st.builds("layers.{}.{}".format, st.integers(0, 5), st.sampled_from(("up", "down"))),
        st.sampled_from(("aten.mm", "(before)")),
        st.sampled_from(("", KEEPS, "input of a checkpoint", "local 'losses[2]' in train")),
        st.integers(1, 2**42),
    ),
    max_size=25,
)


def small(*storages: Storage) -> Any:
    return frame_of([("inputs", "", "(before)", "batch", MIB)], storages)


@settings(max_examples=100, deadline=None)
@given(before=STORAGES, after=STORAGES)
def test_the_changes_sum_to_the_difference_of_the_peaks(before: list[Storage], after: list[Storage]) -> None:
    """Broken if a change is lost or told twice, so that the sentences do not explain the difference."""
    told = diff(small(*before), small(*after))
    ends = [sum(storage[4] for storage in side) for side in (before, after)]
    assert told.difference_bytes == ends[1] - ends[0]
    assert sum(change.difference_bytes for change in told.changes) == told.difference_bytes
    assert sum(group.whole.difference_bytes for group in told.told()) == told.difference_bytes
    sizes = [abs(group.whole.difference_bytes) for group in told.told()]
    assert sizes == sorted(sizes, reverse=True)
    frame = told.frame()
    assert frame["difference_bytes"].sum() == told.difference_bytes
    for role in ROLES:
        mine = frame[frame["role"] == role]
        for column, side in (("before_bytes", before), ("after_bytes", after)):
            unchanged = sum(s[4] for s in side if s[0] == role) - mine[column].sum()
            assert unchanged >= 0
        split = [sum(s[4] for s in side if s[0] == role) for side in (before, after)]
        assert mine["difference_bytes"].sum() == split[1] - split[0]


def test_a_frame_against_itself_changes_nothing() -> None:
    """Broken if the order of rows, or a float, makes a difference."""
    told = diff(small(("activations", "m", "aten.mm", "", 5)), small(("activations", "m", "aten.mm", "", 5)))
    assert told.changes == []
    assert "nothing: every line is the same to the byte" in str(told)


ACTIVATION = ("activations", "layers.3.mlp.up", "aten.addmm", KEEPS)


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        # 4 MiB more, where activations held 22: 18 %
        (
            [(*ACTIVATION, 4 * MIB), ("activations", "x", "aten.mm", "output of tanh", 18 * MIB)],
            [(*ACTIVATION, 8 * MIB), ("activations", "x", "aten.mm", "output of tanh", 18 * MIB)],
            "activations +18 % (+4.00 MiB) in layers.3.mlp.act: input of gelu kept",
        ),
        ([], [(*ACTIVATION, MIB)], "activations new (+1.00 MiB) in layers.3.mlp.act: input of gelu kept"),
        (
            [(*ACTIVATION, MIB)],
            [],
            "activations −100 % (−1.00 MiB) in layers.3.mlp.act: input of gelu no longer kept",
        ),
        (
            [(*ACTIVATION, 4 * MIB)],
            [(*ACTIVATION, MIB)],
            "activations −75 % (−3.00 MiB) in layers.3.mlp.act: less of input of gelu kept",
        ),
        (
            [],
            [("activations", "layers.1", "aten.mm", "input of a checkpoint", MIB)],
            "activations new (+1.00 MiB) in layers.1: input of a checkpoint kept",
        ),
        ([], [("activations", "m", "aten.mm", "", MIB)], "activations new (+1.00 MiB) in m: made by aten.mm"),
        ([], [("optimizer", "head", "exp_avg", "", MIB)], "optimizer new (+1.00 MiB) in head: exp_avg"),
        (
            [("temporaries", "", "aten.sqrt", "", 1000 * MIB)],
            [("temporaries", "", "aten.sqrt", "", 1004 * MIB)],
            "temporaries +0.4 % (+4.00 MiB): made by aten.sqrt",
        ),
        (
            [("retained", "", "aten.sum", "local 'loss' in train", MIB)],
            [
                ("retained", "", "aten.sum", "local 'loss' in train", MIB),
                ("retained", "", "(before)", "local 'x' in main", 2000 * MIB),
            ],
            "retained ×2,001 (+2,000.00 MiB): local 'x' in main, alive before the ledger opened",
        ),
        (
            [],
            [("retained", "head", "aten.mm", "graph of local 'losses[3]' in train", MIB)],
            "retained new (+1.00 MiB) in head: graph of local 'losses[3]' in train, made by aten.mm",
        ),
        (
            [],
            [("retained", "", "(before)", "local 'x' in main", MIB)],
            "retained new (+1.00 MiB): local 'x' in main, alive before the ledger opened",
        ),
    ],
)
def test_a_change_is_said_as_a_person_would(before: list[Storage], after: list[Storage], sentence: str) -> None:
    """Broken if a sentence names the wrong module, the wrong share or the wrong reason."""
    assert diff(small(*before), small(*after)).sentences() == [sentence]


def test_the_same_change_in_twelve_layers_is_one_sentence() -> None:
    """Broken if a reader must add up twelve lines, or the odd layer is folded in with the others."""
    before, after = (frame_of(*transformer(gelu_bytes=size * MIB)) for size in (4, 5))
    (line,) = diff(before, after).sentences()
    assert line == "activations +9 % (+12.00 MiB) in layers.{0..11}.mlp.act (12 ×): input of gelu kept"
    resident, made = transformer(gelu_bytes=5 * MIB)
    odd = [s if s[3] != KEEPS else (*s[:4], 7 * MIB) for s in made]
    lines = diff(before, frame_of(resident, odd)).sentences()
    assert lines[0].startswith("activations +8 % (+11.00 MiB) in layers.{0..2,4..11}.mlp.act (11 ×)")
    assert lines[1].startswith("activations +2 % (+3.00 MiB) in layers.3.mlp.act: ")


def test_a_peak_that_moved_is_said() -> None:
    """Broken if a reader takes a move of the peak's instant for a change of what the step keeps."""
    words = str(diff(small((*ACTIVATION, MIB)), frame_of([], [(*ACTIVATION, MIB)], step=3, phase="recompute")))
    assert "the peak moved from forward to recompute" in words
    assert "in recompute of step 3" in words
    assert "moved" not in str(diff(small((*ACTIVATION, MIB)), small((*ACTIVATION, 2 * MIB))))


def test_flops_are_compared_by_phase() -> None:
    """Broken if a recomputation that saves memory hides what it costs."""
    frame = small((*ACTIVATION, MIB))
    steps = [
        [StepFigures(step=0, peak_bytes=1, flops=f)] for f in ({"forward": 1000}, {"forward": 1000, "recompute": 500})
    ]
    one, two = (profile_of(frame, steps=step) for step in steps)
    rows = [
        re.split(r" *\| *", line)[1:-1] for line in diff((one, frame), two).markdown().splitlines() if "FLOPs" in line
    ]
    assert ["recompute", "0 FLOPs", "500 FLOPs", "+500 FLOPs", "new"] in rows
    assert ["forward", "1.00 kFLOPs", "1.00 kFLOPs", "0", ""] in rows
    assert ["together", "1.00 kFLOPs", "1.50 kFLOPs", "+500 FLOPs", "+50 %"] in rows
    assert "FLOPs" not in str(diff(frame, two)), "a frame alone knows none"


def test_the_changes_left_out_are_summed_up() -> None:
    """Broken if a cut list seems to explain the whole difference."""
    made = [("activations", f"m{chr(97 + i)}", "aten.mm", "", MIB * (10 - i)) for i in range(6)]
    lines = diff(small(), small(*made), rows=3).markdown().splitlines()
    assert "- everything else: +18.00 MiB in 3 smaller changes" in lines  # 7 + 6 + 5
    assert "- together: +45.00 MiB" in lines


def test_an_older_trace_is_compared_as_far_as_it_tells() -> None:
    """Broken if what an older trace did not write down shows up as a change, or its silence is not said."""
    resident, made = transformer(2)
    new = frame_of(resident, made)
    old = new.drop(columns=["made_by", "holder"])
    assert diff(old, new).changes == []
    assert diff(new, old).notes == [OLDER_NOTE]
    assert diff(new, new).notes == []
    (change,) = diff(old, frame_of(resident, [*made, ("retained", "head", "aten.mm", "local 'x' in f", 7)])).changes
    assert (change.role, change.module, change.difference_bytes) == ("retained", "head", 7)


def test_names_in_a_difference_are_never_obeyed() -> None:
    """Broken if a module's name colours a terminal, breaks a table, or runs in a notebook."""
    hostile = "[red]a|b <script>x</script> \x1b[31m"
    told = diff(small(), small(("retained", hostile, hostile, hostile, MIB)))
    assert "[red]a|b <script>" in str(told) and "\x1b" not in str(told)
    assert "<script" not in told._repr_html_()
    assert "\\<script\\>" in told.markdown() and "\x1b" not in told.markdown()
