"""The ledger's table: it sums to the peak, hides nothing that matters, and shows any name as it is."""

from __future__ import annotations

import html
import io
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from toy_profiles import MIB, Storage, frame_of, profile_of, transformer

from dbbench.profile import table as module
from dbbench.profile.table import MemoryTable
from dbbench.report.fold import fold, spelled
from dbbench.results.profile import DeviceFigures, Profile, StepFigures
from dbbench.results.roles import ROLES


def profile(
    extra: list[Storage] | None = None, before: list[Storage] | None = None, layers: int = 12, **changes: object
) -> Profile:
    resident, made = transformer(layers)
    return profile_of(frame_of(resident + (before or []), made + (extra or [])), **changes)


def cells(page: str, title: str) -> list[list[str]]:
    """The rows of the Markdown table below a heading, without its header."""
    part = page.split(f"## {title}")[1].split("\n#")[0]
    lines = [line for line in part.splitlines() if line.startswith("|")]
    return [[cell.strip().strip("`") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def held_cells(shown: Profile, rows: int) -> list[list[str]]:
    return cells(MemoryTable(shown, rows).markdown(), "Held at the peak")


@settings(max_examples=60, deadline=None)
@given(
    storages=st.lists(
        st.tuples(
            st.sampled_from(ROLES),
            st.builds("layers.{}.{}".format, st.integers(0, 9), st.sampled_from(("up", "down"))),
            st.sampled_from(("aten.mm", "aten.add")),
            st.sampled_from(("", "input of gelu in layers.3.act", "local 'losses[2]' in train", "local 'x' in f")),
            st.sampled_from((MIB, 3 * MIB, 400 * MIB)),
        ),
        min_size=1,
        max_size=60,
    ),
    rows=st.integers(1, 12),
)
def test_the_lines_always_sum_to_the_peak(storages: list[Storage], rows: int) -> None:
    """Broken if folding or summing up loses a byte, counts one twice, or drops a line of the split."""
    shown = profile_of(frame_of([], storages))
    lines, rest = module._lines(shown, rows)
    assert sum(line.bytes for line in lines) + sum(row.bytes for row in rest) == shown.peak_bytes
    told = [row for line in lines for row in line.members] + rest
    assert sorted(map(repr, told)) == sorted(map(repr, shown.held))
    printed = held_cells(shown, rows)
    assert printed[-1][0] == "peak"
    # what is a multiple of a MiB is printed exactly
    assert sum(float(row[5].replace(",", "")) for row in printed[:-1]) == pytest.approx(shown.peak_bytes / MIB)
    split = cells(MemoryTable(shown).markdown(), "By role")
    assert sum(float(row[1].replace(",", "")) for row in split[:-1]) == pytest.approx(shown.peak_bytes / MIB)


def test_twelve_layers_are_a_line_an_op() -> None:
    """Broken if a deep model's table is a list of its layers, or folding adds up what is not alike."""
    rows = held_cells(profile(), 20)
    assert ["activations", "layers.{0..11}.mlp.up", "aten.addmm", "input of gelu in layers.{0..11}.mlp.act"] in [
        row[:4] for row in rows
    ]
    assert len(rows) <= 21
    odd = ("activations", "layers.3.mlp.up", "aten.addmm", "input of gelu in layers.3.mlp.act", MIB)
    lines = {tuple(row[1:4]): row[4:6] for row in held_cells(profile([odd]), 20)}
    several = ("layers.{0..2,4..11}.mlp.up", "aten.addmm", "input of gelu in layers.{0..2,4..11}.mlp.act")
    assert lines[several] == ["11", "44.00"]
    assert lines["layers.3.mlp.up", "aten.addmm", "input of gelu in layers.3.mlp.act"] == ["", "5.00"]


def test_a_short_table_is_not_folded() -> None:
    """Broken if two layers that fit the page are shown as one."""
    assert not any("{" in row[1] for row in held_cells(profile(layers=2), 40))


def test_what_nobody_meant_to_keep_is_never_hidden() -> None:
    """Broken if a leak in many small pieces, an EMA copy, or scratch vanishes in the last line of the table."""
    leak = [
        ("retained", f"layers.{i}.{name}", f"aten.op{k}", f"graph of local 'losses[{j}]' in train", 4096 + 512 * i)
        for i in range(12)
        for name in ("up", "down")
        for k in range(5)
        for j in range(4)
    ]
    extra = [("other", "", "get_rng_state", "random-number state", 5056), ("ema", "", "(before)", "ema.weight", 8)]
    extra += [("temporaries", f"m{i}", "aten.sqrt", "", 2**16 + i) for i in range(200)]
    rows = held_cells(profile(leak + extra), 4)
    seen = {(row[0], row[3]): row for row in rows}
    assert seen["retained", "graph of local 'losses[0..3]' in train"][1:3] == ["(24 modules)", "(5 ops)"]
    assert seen["retained", "graph of local 'losses[0..3]' in train"][4] == str(len(leak))
    assert ("other", "random-number state") in seen
    assert ("ema", "ema.weight") in seen
    assert float(seen["temporaries", ""][5]) == pytest.approx(200 * 2**16 / MIB + 2, abs=0.02)
    assert rows[-2][0] == "everything else"


def test_a_copy_of_the_weights_is_a_line() -> None:
    """Broken if an average of the weights is told in as many lines as it has tensors."""
    copies = [("ema", "", "(before)", f"Net.layers.{i}.{j}.weight", 2**16 + j) for i in range(3) for j in range(20)]
    others = [("ema", "", "(before)", f"ema.layers.{i}.{j}.weight", 2**16 + j) for i in range(3) for j in range(20)]
    told = [row for row in held_cells(profile(before=copies + others), 20) if row[0] == "ema"]
    assert [(row[3], row[5]) for row in told] == [("Net (60 tensors)", "3.75"), ("ema (60 tensors)", "3.75")]


def test_the_last_line_says_what_it_sums_up() -> None:
    """Broken if a reader cannot tell what the summed-up bytes are for."""
    shown = profile()
    lines, rest = module._lines(shown, 2)
    left = {role: size / MIB for role, size in module._by_role(rest).items()}
    for role in ("parameters", "optimizer", "activations"):
        listed = sum(line.bytes for line in lines if line.role == role) / MIB
        assert left.get(role, 0) == shown.split[role] / MIB - listed
    said = ", ".join(f"{role} {size:.2f}" for role, size in left.items())
    assert f"everything else, MiB: {said}" in str(MemoryTable(shown, 2))
    assert held_cells(shown, 2)[-1][4] == str(len(shown.held))


HOSTILE = "[red]a|b`c <script>alert(1)</script> \x1b[31m $x$ **b**"


def test_names_are_shown_and_never_obeyed() -> None:
    """Broken if a module's or variable's name colours a terminal, breaks a table, or runs in a notebook."""
    shown = profile(
        [("retained", HOSTILE, HOSTILE, HOSTILE, 500 * MIB)], name=HOSTILE, notes=[HOSTILE], uncounted={HOSTILE: 2}
    )
    visible = HOSTILE.replace("\x1b", "")
    page = MemoryTable(shown)
    plain = str(page)
    assert "\x1b" not in plain and "[red]a|b" in plain and "<script>" in plain
    wide = io.StringIO()
    Console(file=wide, width=400, force_terminal=True).print(page)
    unstyled = re.sub(r"\x1b\[[0-9;]*m", "", wide.getvalue())
    assert unstyled.count(visible) >= 5
    web = page._repr_html_()
    assert "<script" not in web and html.escape(visible) in web
    markdown = page.markdown()
    held = [line for line in markdown.split("## Held")[1].split("\n#")[0].splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in held} == {9}
    assert "\x1b" not in markdown
    for line in markdown.splitlines():
        if not line.startswith("|"):
            assert "<script>" not in line.replace("\\<script\\>", "")


def test_the_head_says_where_the_peak_was() -> None:
    """Broken if a reader does not find the peak's bytes, phase, step, block, module and op in the first lines."""
    steps = [StepFigures(step=i, block=i, peak_bytes=(i + 1) * MIB) for i in range(2)]
    shown = profile(steps=steps, peak_step=7, peak_block=1)
    head = str(MemoryTable(shown)).splitlines()
    assert f"({shown.peak_bytes:,} bytes)" in head[1]
    assert "in forward of step 7, block 1, while aten._log_softmax ran in head" in head[1]
    assert head[2] == "peak of each step, MiB: 1.00, 2.00"


def test_what_was_alive_before_is_said_and_named() -> None:
    """Broken if bytes that the ledger found already there pass for the step's own."""
    before = [("retained", "", "(before)", "local 'cache[0]' in main", 3 * MIB)]
    before += [("retained", "", "(before)", "local 'cache[1]' in main", MIB)]
    words = str(MemoryTable(profile(before=before, resident_bytes=150 * MIB, undeclared_bytes=4 * MIB)))
    line = "150.00 MiB were alive before the ledger opened, of which 4.00 MiB in no declared role: "
    assert line + "local 'cache[0,1]' in main (4.00 MiB)" in " ".join(words.split())
    assert "nothing was alive before the ledger opened" in str(MemoryTable(profile()))
    assert "all in a declared role" in str(MemoryTable(profile(resident_bytes=9)))


def steps_of(*peaks_mib: int, block: int = 0) -> list[StepFigures]:
    return [StepFigures(step=i, block=block * i, peak_bytes=peak * MIB) for i, peak in enumerate(peaks_mib)]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ended_early": "RuntimeError: no"}, "the step ended early"),
        ({"steps": steps_of(9, 10, 12, 13)}, "the peak rises from step to step, by 3.00 MiB from step 1 to 3"),
        ({"steps": steps_of(9, 10, 12, 12)}, ""),
        ({"steps": steps_of(9, 10)}, ""),
        ({"steps": steps_of(9, 10, 12, block=1)}, ""),
        ({"peak_phase": "optimizer"}, "scratch"),
        ({}, ""),
    ],
)
def test_warnings_follow_from_the_figures(changes: dict[str, object], said: str) -> None:
    """Broken if a warning is raised without its fact, or a fact raises none."""
    found = module.warnings(profile([("temporaries", "m", "aten.sqrt", "", 99 * MIB)], **changes))
    assert len(found) == bool(said) and said in " ".join(found)


def test_gradients_in_a_forward_and_retained_bytes_are_flagged() -> None:
    """Broken if a forgotten zero_grad or a leak raises no flag."""
    gradients = [("gradients", "head", "weight", "", 20 * MIB)]
    (line,) = module.warnings(profile(before=gradients))
    assert "20.00 MiB of gradients are alive while a forward runs" in line
    assert module.warnings(profile(before=gradients, peak_phase="backward")) == []
    # of all 48 parameters, before the backward has let go of what it needs for them
    gradients = [("gradients", f"layers.{i}", "weight", "", 4 * MIB) for i in range(12)]
    shown = profile(before=gradients, peak_phase="backward")
    (line,) = module.warnings(shown)
    assert "48.00 MiB of gradients are alive as a backward begins" in line
    later = shown.model_copy(update={"own_peaks": shown.own_peaks | {"activations": 2 * shown.split["activations"]}})
    assert module.warnings(later) == []
    leak = [("retained", "m", "aten.mm", f"local 'losses[{i}]' in train", 4 * MIB) for i in range(3)]
    (line,) = module.warnings(profile([*leak, ("retained", "m", "aten.mm", "local 'y' in f", 5 * MIB)]))
    assert "17.00 MiB" in line and "most, 12.00 MiB, by local 'losses[0..2]' in train" in line


def test_mfu_and_hfu_by_hand_and_their_denominator() -> None:
    """Broken if recomputed FLOPs count as the model's own, or the peak rate is not printed beside the ratio."""
    steps = [StepFigures(step=0, peak_bytes=1, flops={"forward": 10, "backward": 20, "recompute": 10})]
    shown = profile(
        steps=steps, seconds_per_step=[9.0, 0.5, 0.4], peak_flops_per_second=100.0, peak_flops_source="a sheet"
    )
    words = str(MemoryTable(shown))
    # 30 and 40 FLOPs in the median of 0.5 s, of 100 a second
    assert "MFU 60.0 % (forward and backward), HFU 80.0 % (all that ran), of 100 FLOP/s (a sheet)" in words
    assert "MFU" not in str(MemoryTable(profile(steps=steps, seconds_per_step=[1.0])))


def test_device_figures_keep_their_reasons() -> None:
    """Broken if a figure that could not be had is shown as zero or without why."""
    figures = DeviceFigures(
        device_peak_bytes=1000 * MIB, workspace_op="aten.conv", reasons={"reserved_bytes": "no CUDA"}
    )
    shown = profile(device_figures=figures)
    rows = {
        row[0]: row[1:] for row in cells(MemoryTable(shown).markdown(), "The device's own account, of an untraced step")
    }
    assert rows["… and kernel workspace and peak shift"] == [
        "while aten.conv ran",
        f"+{1000 - shown.peak_bytes / MIB:,.2f}",
    ]
    assert rows["reserved by the allocator"] == ["no CUDA", "–"]


def test_the_frame_is_the_profile_to_the_byte() -> None:
    """Broken if the data frame is rounded, folded or cut as the table is."""
    shown = profile()
    frame = MemoryTable(shown, rows=1).frame()
    assert len(frame) == len(shown.held)
    assert frame["bytes"].sum() == shown.peak_bytes
    assert frame["share"].sum() == pytest.approx(1)
    assert frame["bytes"].is_monotonic_decreasing


def test_numbers_fold_in_paths_and_indices_alone() -> None:
    """Broken if two different modules become one line because their names hold digits."""
    names = ["stages.0.conv1", "stages.1.conv1", "stages.2.conv1", "stages.0.conv2", "losses[4] 3", "losses[7] 3"]
    groups = fold(names, lambda name: [name], lambda name: None)
    assert [group for (group,), _ in groups] == ["stages.{0..2}.conv1", "stages.0.conv2", "losses[4,7] 3"]
    assert spelled([1, 2, 4, 6, 7, 8, 11]) == "1,2,4,6..8,11"


def test_a_profile_of_nothing_has_a_table() -> None:
    """Broken if a ledger in which nothing happened cannot be printed."""
    nothing = dict.fromkeys(ROLES, 0)
    empty = profile().model_copy(
        update={
            "held": [],
            "split": nothing,
            "own_peaks": nothing,
            "peak_bytes": 0,
            "peak_phase": None,
            "peak_step": None,
        }
    )
    assert "0.00 MiB at the peak" in str(MemoryTable(empty))
    assert MemoryTable(empty).frame().empty
