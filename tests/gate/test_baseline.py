"""The baseline's file: what is written is read back, whatever the names, and nothing else is read."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dbbench.errors import BadInput
from dbbench.gate import tolerance
from dbbench.gate.baseline import Baseline, figure_line, lines, read
from dbbench.gate.cells import AT_PEAK, Cell, Figure
from dbbench.gate.check import Measurement
from dbbench.gate.lines import escape, fold_names, numbers_of, unescape, unfold_names
from dbbench.gate.update import update
from dbbench.results.record import Held
from dbbench.results.roles import PHASES, ROLES

ODD = st.text(st.sampled_from("ab.0179-#{}[]\\\t\n\r\x00\x85\u2028 |<>=é𝒳\ud800,"), max_size=12)
NAME = ODD | st.text(max_size=8) | st.builds("layers.{}.up".format, st.integers(0, 12))
TOLERANCE = st.sampled_from(["exact", "off", "1%", "0.25%", "4096"]).map(tolerance.parse)
NOISE = st.builds(
    Figure,
    st.floats(-1e6, 1e6).map(lambda value: float(f"{value:.6g}")),
    st.just(tolerance.NOISE),
    st.floats(0, 10).map(lambda value: float(f"{value:.3g}")),
    st.integers(1, 30),
)
FIGURES = st.dictionaries(NAME.filter(bool), st.builds(Figure, st.integers(0, 2**62), TOLERANCE) | NOISE, max_size=5)
INSTANTS = [AT_PEAK, *ROLES, *(f"in_{phase}" for phase in PHASES)]


@st.composite
def held(draw: Any) -> dict[str, list[Held]]:
    found: dict[str, list[Held]] = {}
    for instant in draw(st.lists(st.sampled_from(INSTANTS), unique=True, max_size=3)):
        names = draw(st.lists(st.tuples(st.sampled_from(ROLES), NAME, NAME, NAME), unique=True, min_size=1, max_size=8))
        for role, module, op, holder in names:
            mine = role if instant == AT_PEAK else instant if instant in ROLES else "temporaries"
            row = Held(
                role=mine, module=module, op=op, holder=holder or None, bytes=draw(st.integers(1, 9)), storages=1
            )
            same = [(r.role, r.module, r.op, r.holder) for r in found.get(instant, [])]
            if (mine, module, op, holder or None) not in same:
                found.setdefault(instant, []).append(row)
    return found


WORD = NAME.filter(bool)
CELLS = st.lists(st.builds(Cell, WORD, WORD, WORD, FIGURES, held()), max_size=4, unique_by=lambda cell: cell.key)


def cell(name: str = "s/one", **figures: int) -> Cell:
    rows = [
        Held(
            role="activations",
            module=f"layers.{i}",
            op="aten.mm",
            holder=f"input of mm in layers.{i}",
            bytes=8,
            storages=1,
        )
        for i in range(4)
    ]
    values = {"peak_bytes": 32, "activations_bytes": 32} | figures
    return Cell(name, "fake", "2.13.0", {metric: Figure(value) for metric, value in values.items()}, {AT_PEAK: rows})


def measurement(*cells: Cell, whole: bool = True, **failed: str) -> Measurement:
    return Measurement("s.yaml", cells, failed, {"s"}, {"fake"}, whole=whole)


def written(path: Path, *cells: Cell) -> Baseline:
    found, _ = update(read(path) or Baseline(path), measurement(*cells))
    found.write()
    again = read(path)
    assert again is not None
    return again


def known(baseline: Baseline) -> dict[Any, Any]:
    """What a baseline knows, in an order of its own."""
    return {
        key: (
            one.figures,
            {
                instant: sorted((row.role, row.module, row.op, row.holder or "", row.bytes) for row in rows)
                for instant, rows in one.held.items()
            },
        )
        for key, one in baseline.cells.items()
        if one.figures or one.held
    }


# ------------------------------------------------------------------------------------------------------- round trips


@settings(max_examples=50, deadline=None)
@given(cells=CELLS)
def test_what_is_written_is_read_back(cells: list[Cell], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Broken if a name with a tab, a line end, a brace or a number in it becomes another name, or none."""
    path = tmp_path_factory.mktemp("round") / "baseline.txt"
    baseline = Baseline(path, {one.key: one for one in cells}, {one.key[:2] for one in cells})
    path.write_text(baseline.text())
    again = read(path)
    assert again is not None
    assert known(again) == known(baseline)
    assert again.present == baseline.present
    assert again.text() == baseline.text()


@settings(max_examples=50, deadline=None)
@given(cells=CELLS)
def test_the_file_is_sorted_and_says_each_thing_once(cells: list[Cell]) -> None:
    """Broken if the order depends on that of the cells, so that two people's files differ all over."""
    forth, back = (Baseline(Path("b"), {one.key: one for one in order}) for order in (cells, cells[::-1]))
    assert forth.text() == back.text()
    first, *rest = forth.text().encode("utf-8", "strict").decode().split("\n")[:-1]
    assert (first, rest) == ("dbbench baseline 1", sorted(rest))
    assert len(set(rest)) == len(rest)
    assert all(line.isprintable() for line in (line.replace("\t", "") for line in rest))


@given(text=st.text() | ODD)
@example("-")
@example(" ")
@example("#")
@example("a ")
def test_an_escaped_name_is_one_visible_column(text: str) -> None:
    """Broken if a name ends its column or its line, or two names become one."""
    assert unescape(escape(text)) == text
    assert escape(text).isprintable()
    assert escape(text) == escape(text).strip() or text.startswith(" ")
    assert not escape(text).startswith("#")


@settings(max_examples=100)
@given(
    rows=st.dictionaries(
        st.tuples(NAME | st.builds("{}.{}".format, ODD, st.integers(0, 30)), NAME, NAME), st.integers(1, 3), max_size=12
    )
)
def test_folding_loses_no_module(rows: dict[tuple[str, str, str], int]) -> None:
    """Broken if a folded line stands for other modules than those it was made of."""
    unfolded = {}
    for *columns, size in fold_names(rows.items()):
        for names in unfold_names(columns):
            assert names not in unfolded
            unfolded[names] = size
    assert unfolded == rows


def test_numbered_modules_share_a_line() -> None:
    """Broken if a network of thirty layers has thirty lines for each that one of three has."""
    rows = [((f"layers.{i}.up", "mm", f"input of mm in layers.{i}.down"), 8) for i in (0, 1, 2, 3, 7)]
    assert fold_names(rows) == [("layers.{0..3,7}.up", "mm", "input of mm in layers.{0..3,7}.down", 8)]


@pytest.mark.parametrize("words", ["", "3..1", "1,1", "2,1", "0..9999999", "1..", "x", "1,,2"])
def test_what_is_no_list_of_numbers_is_refused(words: str) -> None:
    """Broken if a slip of the hand makes modules up."""
    with pytest.raises(ValueError, match="list of"):
        numbers_of(words)


# -------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("s/one\tfake\t2.13.0\tpeak_bytes\t32", "2, 6 or 8 columns set apart by tabs, not 5"),
        ("s/one fake 2.13.0 peak_bytes 32 exact", "not 1"),
        ("s/one\tfake\t2.13.0\tnew_bytes\tmany\texact", "'many' is no value"),
        ("s/one\tfake\t2.13.0\tnew_bytes\t1.5.2\texact", "'1.5.2' is no value"),
        ("s/one\tfake\t2.13.0\tnew_bytes\tnan\texact", "'nan' is no value"),
        ("s/one\tfake\t2.13.0\tnew_bytes\t1e400\texact", "out of all bounds"),
        ("s/one\tfake\t2.13.0\tnew_bytes\t32\tabout", "'about' is no tolerance"),
        ("s/one\tfake\t2.13.0\tnew_bytes\t32\tp<2,1%", "is no tolerance"),
        ("s/one\tfake\t2.13.0\tnew_bytes\t32\tp<0.05,1%", "has no deviation"),
        ("s/one\tfake\t2.13.0\tpeak_bytes\t33\texact", "s/one fake 2.13.0 peak_bytes stands in line 12 already"),
        ("s/one\tfake\t\tnew_bytes\t32\texact", "an empty column"),
        ("s/one\tfake\t-\tnew_bytes\t32\texact", "cell, source and torch must be given"),
        ("s/one\tfake\t2.13.0\ta\\q\t32\texact", "'\\q' is no escape"),
        ("s/one\tfake\t2.13.0\tat_peek.activations\tm\to\t-\t8", "is none of at_peak.ROLE"),
        ("s/one\tfake\t2.13.0\tat_peak.activation\tm\to\t-\t8", "did you mean 'activations'"),
        ("s/one\tfake\t2.13.0\tat_peak.activations\tm\to\t-\t8.5", "no number of bytes"),
        ("s/one\tfake\t2.13.0\tat_peak.activations\tl.{0..2}\to\tl.{0..3}\t8", "two lists of numbers"),
        ("s/one\tfake\t2.13.0\tat_peak.activations\tl.{x}\to\t-\t8", "a brace"),
        ("s/one\tfake\t2.13.0\tat_peak.activations\tlayers.0\taten.mm\tinput of mm in layers.0\t8", "already"),
        ("<<<<<<< HEAD", "a merge conflict was left in the file ('<<<<<<< HEAD')"),
        ("=======", "a merge conflict"),
        (">>>>>>> theirs", "a merge conflict"),
        ("||||||| base", "a merge conflict"),
    ],
)
def test_a_bad_line_is_named(line: str, says: str, tmp_path: Path) -> None:
    """Broken if a slip of the hand, or half a merge, is taken for a baseline, or the line is not named."""
    path = tmp_path / "baseline.txt"
    written(path, cell(**{f"{role}_bytes": 1 for role in ROLES if role != "activations"}))
    body = path.read_text()
    path.write_text(f"{body}{line}\n")
    with pytest.raises(BadInput) as caught:
        read(path)
    assert f"{path}:{body.count(chr(10)) + 1}: " in str(caught.value)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "no baseline of dbbench"),
        (b"\n", "no baseline of dbbench"),
        (b"{}\n", "its first line would be 'dbbench baseline 1'"),
        (b"dbbench baseline 0\n", "version 0 of the format is older than the 1"),
        (b"dbbench baseline 2\n", "version 2 of the format is newer than the 1"),
        (b"<<<<<<< HEAD\ndbbench baseline 1\n", ":1: a merge conflict"),
        (b"dbbench baseline 1\n\xff\n", "is not UTF-8 (byte 19)"),
        (b"dbbench baseline 1\ns/one\tfa", ":2: the last line has no end"),
    ],
)
def test_what_is_no_baseline_is_refused(body: bytes, says: str, tmp_path: Path) -> None:
    """Broken if a torn file, another version's, or one that is none passes for an empty baseline."""
    path = tmp_path / "baseline.txt"
    path.write_bytes(body)
    with pytest.raises(BadInput) as caught:
        read(path)
    assert says in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_checkout_with_other_line_ends_is_read(tmp_path: Path) -> None:
    """Broken if git's conversion of line ends on Windows makes every line a bad one."""
    path = tmp_path / "baseline.txt"
    before = known(written(path, cell()))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    again = read(path)
    assert again is not None
    assert known(again) == before


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, 400))
def test_a_torn_baseline_is_refused_or_whole_lines(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Broken if a number that was cut in two is taken for a smaller one."""
    path = tmp_path_factory.mktemp("torn") / "baseline.txt"
    whole = written(path, cell(), cell("s/two"))
    body = path.read_bytes()[:cut]
    path.write_bytes(body)
    try:
        again = read(path)
    except BadInput:
        return
    assert again is not None
    for key, one in again.cells.items():
        assert one.figures.items() <= whole.cells[key].figures.items()


# ---------------------------------------------------------------------------------------------- updates and merges


def test_an_update_replaces_what_was_measured_and_nothing_else(tmp_path: Path) -> None:
    """Broken if --update of a part throws away the rest, or a tolerance that was set by hand, or a comment."""
    path = tmp_path / "baseline.txt"
    written(path, cell(), cell("s/two"))
    body = path.read_text().replace("peak_bytes\t32\texact", "peak_bytes\t32\t5%")
    line = figure_line(cell("s/two"), "activations_bytes")
    path.write_text(body.replace(line, f"# the one we watch\n{line}"))
    again = written(path, cell("s/two", activations_bytes=40))
    assert {key[0]: str(one.figures["peak_bytes"].tolerance) for key, one in again.cells.items()} == {
        "s/one": "5%", "s/two": "5%",
    }  # fmt: skip
    assert [one.bytes("activations_bytes") for one in again.cells.values()] == [32, 40]
    above = path.read_text().splitlines()
    place = above.index("# the one we watch")
    assert above[place + 1] == figure_line(cell("s/two", activations_bytes=40), "activations_bytes")


def test_an_update_says_what_changed(tmp_path: Path) -> None:
    """Broken if a reviewer cannot see from the command's own words what the new file accepts."""
    old = written(tmp_path / "b.txt", cell(), cell("s/two"), cell("s/gone"))
    new = [cell(), cell("s/two", peak_bytes=48), cell("s/new")]
    _, told = update(old, measurement(*new))
    assert told == [
        "s/two (fake, torch 2.13.0): peak_bytes 32 → 48",
        "s/new (fake, torch 2.13.0): added, 2 figures",
        "s/gone (fake): stays, though it was not measured (--prune)",
    ]
    pruned, told = update(old, measurement(*new), prune=True)
    assert told[-1] == "s/gone (fake): taken out"
    assert {key[0] for key in pruned.cells} == {"s/one", "s/two", "s/new"}
    part, told = update(old, measurement(cell(), whole=False), prune=True)
    assert (told, {key[0] for key in part.cells}) == ([], {"s/one", "s/two", "s/gone"})
    kept, told = update(old, measurement(cell(), cell("s/two"), **{"s/gone": "no data"}), prune=True)
    assert (told, len(kept.cells)) == ([], 3), "a cell that failed is not one that is no more"


def test_an_update_to_another_torch_replaces_the_lines(tmp_path: Path) -> None:
    """Broken if a file grows by a copy of itself with each version of torch."""
    path = tmp_path / "b.txt"
    old = written(path, cell())
    newer = Cell("s/one", "fake", "2.14.0", cell().figures, cell().held)
    found, told = update(old, measurement(newer))
    assert told == ["s/one (fake, torch 2.14.0): torch 2.13.0 → 2.14.0"]
    assert [key[2] for key in found.cells] == ["2.14.0"]


@settings(max_examples=30, deadline=None)
@given(ours=st.integers(33, 99), theirs=st.integers(33, 99), which=st.permutations(["s/a", "s/b", "s/c"]))
def test_git_merges_updates_of_different_cells(
    ours: int, theirs: int, which: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Broken if two branches that change two neighbouring cells conflict, or merge into something else than both."""
    folder = tmp_path_factory.mktemp("merge")
    base = [cell(name) for name in ("s/a", "s/b", "s/c")]
    changed = {which[0]: ("ours", ours), which[1]: ("theirs", theirs)}
    for side in ("base", "ours", "theirs"):
        cells = [
            cell(one.name, peak_bytes=value, activations_bytes=value)
            if (value := changed.get(one.name, ("", 0))[1]) and changed[one.name][0] == side
            else one
            for one in base
        ]
        written(folder / side, *cells)
    command = ["git", "merge-file", "-p", "ours", "base", "theirs"]
    done = subprocess.run(command, cwd=folder, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout.decode()
    (folder / "merged").write_bytes(done.stdout)
    merged = read(folder / "merged")
    assert merged is not None
    assert {key[0]: one.bytes("peak_bytes") for key, one in merged.cells.items()} == {
        which[0]: ours, which[1]: theirs, which[2]: 32,
    }  # fmt: skip
    assert merged.text().encode() == done.stdout, "the merged file is not what an update would write"


def test_a_conflict_within_a_cell_is_refused(tmp_path: Path) -> None:
    """Broken if what git leaves of two changes of one figure is read as a baseline."""
    for side, size in (("base", 32), ("ours", 40), ("theirs", 48)):
        written(tmp_path / side, cell(peak_bytes=size))
    command = ["git", "merge-file", "-p", "ours", "base", "theirs"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60, check=False)
    assert done.returncode == 1
    (tmp_path / "merged").write_bytes(done.stdout)
    with pytest.raises(BadInput, match="a merge conflict was left"):
        read(tmp_path / "merged")


def test_the_lines_of_a_cell_are_the_files(tmp_path: Path) -> None:
    """Broken if the line that a message asks to commit is not the one that the file would have."""
    path = tmp_path / "b.txt"
    written(path, cell())
    inside = path.read_text().splitlines()
    assert lines(cell()) == inside[2:]
    assert figure_line(cell(), "peak_bytes") in inside
