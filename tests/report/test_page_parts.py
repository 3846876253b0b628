"""The parts of the page that compute: thinned timelines, trees of modules, and SVG made small."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import USUAL, Variant, build, record_of, trace_of

from dbbench.report import svg
from dbbench.report.figure_style import as_svg, blank, page
from dbbench.report.page import timelines
from dbbench.report.page.timelines import INSTANTS, choose, kept, payload
from dbbench.report.page.trees import CHILDREN, Node, tree_of, trees
from dbbench.report.run import load
from dbbench.results.record import Held
from dbbench.results.roles import ROLES

TWINS = [Variant(f"twin_{i}", f"toy{i}", (0.8, 0.81), {}) for i in range(11)]


def unpacked(variant: dict) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    return np.cumsum(variant["at"]), {role: np.cumsum(sizes) for role, sizes in variant["roles"].items()}


def test_a_timeline_reads_back_as_the_live_bytes_of_the_traced_step(tmp_path):
    """Against the trace's own events, summed one after another."""
    build(tmp_path, variants=USUAL[:1], seeds=1)
    chosen = choose([load(tmp_path)], [""]).chosen
    found = payload(chosen)
    (variant,) = found["variants"]
    at, roles = unpacked(variant)
    trace = trace_of(record_of(USUAL[0], 0))
    rows = trace[trace["step"] == 2]
    live = dict.fromkeys(ROLES, 0)
    instants = []
    for row in rows.itertuples():
        live[row.role] += row.bytes
        if row.phase != "resident":
            instants.append((dict(live), row))
        else:
            opening = dict(live)
    assert at.tolist() == list(range(len(instants) + 1))
    for i, (expected, row) in enumerate(instants, 1):
        assert {role: int(sizes[i]) for role, sizes in roles.items()} == {r: expected[r] for r in roles}
        said = {name: found["words"][variant[name][i - 1]] for name in ("phase", "module", "op", "role")}
        assert said == {"phase": row.phase, "module": row.module, "op": row.op, "role": row.role}
        assert variant["bytes"][i - 1] == row.bytes
    assert {role: int(sizes[0]) for role, sizes in roles.items()} == {r: opening[r] for r in roles}
    total = sum(roles.values())
    assert total[variant["peak"]] == total.max() == record_of(USUAL[0], 0).row.peak_bytes
    assert variant["bands"][0][0] == 0 and variant["bands"][-1][1] == len(instants)
    for start, end, phase in variant["bands"]:
        assert {row.phase for _, row in instants[start:end]} == {phase}


def test_thinning_keeps_the_peak_the_ends_and_the_extremes_of_every_stretch():
    total = np.random.default_rng(0).integers(1_000, 2_000, 100_000)
    total[76_543], total[12_345], total[99_000] = 10_000, 0, 10_000
    shown = kept(total)
    assert len(shown) <= INSTANTS and {0, 12_345, 76_543, 99_999} <= set(shown.tolist())
    assert int(shown[total[shown].argmax()]) == 76_543, "the first of two equal peaks"
    assert kept(total[:INSTANTS]).tolist() == list(range(INSTANTS)), "a short step is shown whole"


def test_a_long_step_is_thinned_and_its_peak_and_phases_stay(tmp_path):
    folder = build(tmp_path, variants=USUAL[:1], seeds=1)
    record = record_of(USUAL[0], 0)
    trace = trace_of(record)
    flicker = pd.concat([trace.iloc[[-1]].assign(bytes=size, phase="optimizer") for size in (8, -8)] * 4_000)
    folder.write_trace(record.row.config_hash, pd.concat([trace, flicker]))
    (variant,) = payload(choose([load(tmp_path)], [""]).chosen)["variants"]
    at, roles = unpacked(variant)
    assert variant["instants"] > 8_000 and len(at) <= INSTANTS and at[-1] == variant["instants"] - 1
    assert sum(roles.values())[variant["peak"]] == record.row.peak_bytes
    assert variant["bands"][-1] == [variant["bands"][-1][0], variant["instants"] - 1, "optimizer"]


def test_eight_timelines_at_most_are_embedded_and_the_others_named(tmp_path):
    build(tmp_path, variants=TWINS, seeds=1)
    found = choose([load(tmp_path)], [""])
    assert [one.name for one in found.chosen] == [f"twin_{i}" for i in range(8)]
    assert found.left_out == ["twin_8", "twin_9", "twin_10"]


def test_runs_share_the_room_for_timelines(tmp_path):
    build(tmp_path / "a", variants=TWINS, seeds=1)
    build(tmp_path / "b", variants=TWINS[:5], seeds=1)
    found = choose([load(tmp_path / "a"), load(tmp_path / "b")], ["a", "b"])
    assert [one.name for one in found.chosen] == [f"{run}: twin_{i}" for run in "ab" for i in range(4)]


def test_a_torn_trace_is_passed_over(tmp_path):
    build(tmp_path, variants=USUAL[:2], seeds=1)
    (tmp_path / "traces" / f"{record_of(USUAL[0], 0).row.config_hash}.parquet").write_bytes(b"PAR1")
    found = choose([load(tmp_path)], [""])
    assert [one.name for one in found.chosen] == ["checkpointing"]
    assert found.left_out == ["backprop"]


def nodes(node: Node):
    yield node
    for child in node.children:
        yield from nodes(child)


words = st.sampled_from(["", "a", "a.b", "a.b.c", "b", "layers.0", "layers.1.attention", "(everything else)", "."])
lines = st.builds(
    Held,
    role=st.sampled_from(ROLES),
    module=words | st.integers(0, 200).map(lambda i: f"layers.{i}"),
    op=st.sampled_from(["aten.mm", ""]),
    holder=st.none() | st.just("frame step: x"),
    bytes=st.integers(1, 2**40),
    storages=st.integers(1, 9),
)


@given(st.lists(lines, max_size=150))
def test_every_node_of_a_tree_is_the_sum_of_what_is_below_it(held):
    root = tree_of(held)
    assert root.bytes == sum(line.bytes for line in held)
    for node in nodes(root):
        assert sum(node.roles.values()) == node.bytes
        assert len(node.children) <= CHILDREN
        if not node.leaf:
            assert sum(child.bytes for child in node.children) == node.bytes
            assert sum(child.storages for child in node.children) == node.storages
            folded = [child.bytes for child in node.children if not child.name.startswith("(")]
            assert folded == sorted(folded, reverse=True)


def test_a_modules_path_is_a_way_down_the_tree():
    held = [Held(role="activations", module="layers.3.mlp", op="aten.gelu", bytes=5, storages=1, holder="input of mm")]
    path, node = [], tree_of(held)
    while node.children:
        (node,) = node.children
        path.append(node.name)
    assert path == ["layers", "3", "mlp", "aten.gelu · input of mm — activations"]


def test_a_trace_that_disagrees_with_its_record_does_not_replace_it(tmp_path):
    folder = build(tmp_path, variants=USUAL[:1], seeds=1)
    record = record_of(USUAL[0], 0)
    trace = trace_of(record)
    folder.write_trace(record.row.config_hash, trace[trace["role"] != "other"])
    run = load(tmp_path)
    (tree,) = trees([run], [""], choose([run], [""]).chosen).trees
    assert tree.root.bytes == record.row.peak_bytes
    assert "record" in tree.source


def test_the_room_for_trees_is_kept_and_what_is_left_out_is_named(tmp_path):
    build(tmp_path, variants=USUAL, seeds=1, traces=False)
    run = load(tmp_path)
    room = 3 * trees([run], [""], []).trees[0].root.size
    some = trees([run], [""], [], room)
    assert len(some.trees) == 3 and sum(tree.root.size for tree in some.trees) <= room
    assert [t.name for t in some.trees] + some.left_out == [variant.label for variant in USUAL]


def corners(path: str) -> list[tuple[float, float]]:
    """Follow a path of straight lines, absolute commands only."""
    found: list[tuple[float, float]] = []
    for command, rest in re.findall(r"([MLHVz])([^MLHVz]*)", path):
        values = [float(word) for word in rest.split()]
        if command == "H":
            values = [values[0], found[-1][1]]
        elif command == "V":
            values = [found[-1][0], values[0]]
        if command != "z":
            found.append((values[0], values[1]))
    return found


def area(points: list[tuple[float, float]]) -> float:
    shifted = [*points[1:], points[0]]
    return sum(x * v - u * y for (x, y), (u, v) in zip(points, shifted, strict=True)) / 2


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=120, max_size=300))
def test_a_stepped_area_keeps_its_outline_in_fewer_points(steps):
    """Area, extent and corners are those of the path as matplotlib wrote it."""
    x, points = 0.0, [(0.0, 0.0)]
    for across, height in steps:
        points += [(x, height / 2), (x + across / 4, height / 2)]
        x += across / 4
    points.append((x, 0.0))
    path = "M " + " \nL ".join(f"{a:f} {b:f}" for a, b in points) + " \nz"
    small = corners(svg._outline(path))
    assert area(small) == pytest.approx(area(points))
    assert set(small) <= set(points)
    assert {max(p) for p in zip(*small, strict=True)} <= {max(p) for p in zip(*points, strict=True)}
    assert all(one != two for one, two in pairwise(small))


def drawn(hatch: str) -> str:
    with page():
        figure = blank(2, 1)
        figure.add_axes((0, 0, 1, 1)).bar([0], [1], hatch=hatch)
        return as_svg(figure)


def test_a_hatch_of_circles_is_one_period_that_tiles_as_before():
    """Every circle of the whole tile is one of the small tile's, moved by whole periods."""
    with page():
        figure = blank(2, 1)
        figure.add_axes((0, 0, 1, 1)).bar([0], [1], hatch="oooo")
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg")
    whole, small = buffer.getvalue().decode(), drawn("oooo")
    assert len(small) < 40_000 < 500_000 < len(whole)
    period = float(re.search(r'<pattern [^>]*width="([\d.]+)"', small)[1])
    assert 72 % period == 0

    def centres(text: str) -> set[tuple[float, float]]:
        outline = re.search(r'<pattern .*? d="([^"]*)"', text, re.DOTALL)[1]
        starts = re.findall(r"M\s*(\S+) (\S+)", outline)
        return {(round(float(x) % period, 2) % period, round(float(y) % period, 2) % period) for x, y in starts}

    assert centres(small) == centres(whole)


def test_other_hatches_and_curves_stay():
    lines_hatch = drawn("////")
    assert 'width="72"' in re.search("<pattern [^>]*>", lines_hatch)[0]
    assert svg._outline("M 1.23456 2 C 1 2 3.999 4 5 6") == "M 1.23 2 C 1 2 3.99 4 5 6"


def test_a_figure_is_the_same_svg_twice():
    assert drawn("oooo") == drawn("oooo")
    assert "<dc:date>" not in drawn("xx")


def test_a_trace_of_another_network_is_another_panel(tmp_path):
    """Broken if the linear baseline, whose method is backprop too, hides the network's own backprop or is hidden."""
    build(tmp_path, variants=[USUAL[0], replace(USUAL[7])], seeds=1)
    assert [one.name for one in choose([load(tmp_path)], [""]).chosen] == ["backprop", "linear"]
    assert timelines.TIMELINES == 8
