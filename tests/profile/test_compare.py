"""Two folders compared: the right cells are paired, and what cannot be is said in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from report.synthetic import MIB, USUAL, Variant, build, failed, record_of, trace_of
from toy_profiles import frame_of, profile_of, transformer
from typer.testing import CliRunner

from dbbench.cli import app
from dbbench.errors import BadInput
from dbbench.profile.compare import compare_folders
from dbbench.results.profile import write_profile


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs that share backprop and checkpointing; the second's checkpointing keeps 4 MiB more and lacks seed 0."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    build(one, USUAL[:3], seeds=2, curves=False)
    heavier = Variant("checkpointing", "checkpointing", (0.8,), {}, 26.0, flops=(10**9, 2 * 10**9, 9 * 10**8))
    build(two, [USUAL[0], heavier, USUAL[7]], seeds=3, curves=False, failures=[failed(heavier, 0, "failed", "no")])
    return one, two


def test_runs_are_compared_variant_by_variant_on_the_lowest_common_seed(runs: tuple[Path, Path]) -> None:
    """Broken if two different cells are compared, or a variant of one run alone is passed over in silence."""
    told = compare_folders(*runs)
    assert list(told.diffs) == ["backprop", "checkpointing"]
    assert told.diffs["backprop"].changes == []
    assert told.diffs["checkpointing"].difference_bytes == 4 * MIB
    assert told.notes == [f"only in {runs[0]}: greedy", f"only in {runs[1]}: linear"]
    assert sum(c.difference_bytes for c in told.diffs["checkpointing"].changes) == 4 * MIB
    words = " ".join(str(told).split())
    assert "greedy" in words and "activations +18 % (+4.00 MiB)" in words  # 4 of the 22 MiB before


def test_two_variants_of_one_run(runs: tuple[Path, Path]) -> None:
    """Broken if a method cannot be held against another of the same run."""
    told = compare_folders(f"{runs[0]}:backprop", f"{runs[0]}:checkpointing")
    (one,) = told.diffs.values()
    sizes = [record_of(variant, 0).row.peak_bytes for variant in USUAL[:2]]
    assert (one.before.peak_bytes, one.after.peak_bytes) == tuple(sizes)
    assert one.before.flops == {"forward": 10**9, "backward": 2 * 10**9, "recompute": 0}
    assert "recompute" in str(one)


def test_one_variant_against_a_whole_run_takes_the_same_variant(runs: tuple[Path, Path]) -> None:
    """Broken if a selector on one side is ignored."""
    told = compare_folders(f"{runs[0]}:checkpointing", runs[1])
    assert list(told.diffs) == ["checkpointing"]


def test_saved_profiles(tmp_path: Path) -> None:
    """Broken if what ledger.save leaves cannot be compared."""
    for name, size in (("one", 4), ("two", 5)):
        frame = frame_of(*transformer(gelu_bytes=size * MIB))
        write_profile(tmp_path / name, profile_of(frame, name="gpt2"), frame)
    told = compare_folders(tmp_path / "one", tmp_path / "two")
    (one,) = told.diffs.values()
    assert one.sentences() == ["activations +9 % (+12.00 MiB) in layers.{0..11}.mlp.act (12 ×): input of gelu kept"]
    assert f"gpt2 of {tmp_path / 'one'}" in one.before.name


def test_a_profile_against_a_variant(tmp_path: Path, runs: tuple[Path, Path]) -> None:
    """Broken if a stranger's step cannot be held against a suite's cell."""
    frame = trace_of(record_of(USUAL[0], 0))
    write_profile(tmp_path, profile_of(frame), frame)
    told = compare_folders(tmp_path, f"{runs[0]}:backprop")
    assert next(iter(told.diffs.values())).changes == []


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("{one}:backprob", "{two}", "no variant 'backprob' (did you mean 'backprop'?)"),
        ("{one}:greedy", "{two}", "has no variant 'greedy'"),
        ("nowhere", "{two}", "nowhere: no such folder"),
        ("nowhere:backprop", "{two}", "nowhere: no such folder"),
        ("{empty}", "{two}", "neither a saved profile (profile.json) nor a run (records/)"),
        ("{one}", "{three}", "no variant in common"),
        ("{one}:checkpointing", "{four}", "no finished cell with a trace"),
    ],
)
def test_what_cannot_be_compared_is_one_line(
    runs: tuple[Path, Path], tmp_path: Path, before: str, after: str, said: str
) -> None:
    """Broken if a mistyped variant or folder ends in a traceback or an empty page."""
    (tmp_path / "empty").mkdir()
    build(tmp_path / "three", USUAL[4:5], seeds=1, curves=False)
    build(tmp_path / "four", USUAL[1:2], seeds=1, curves=False, traces=False)
    names = {"one": runs[0], "two": runs[1]} | {name: tmp_path / name for name in ("empty", "three", "four")}
    with pytest.raises(BadInput) as error:
        compare_folders(before.format(**names), after.format(**names))
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_trace_of_another_step_is_refused(tmp_path: Path) -> None:
    """Broken if a trace that does not rise to its record's peak is compared as if it did."""
    folder = build(tmp_path, USUAL[:2], seeds=1, curves=False)
    folder.write_trace(record_of(USUAL[0], 0).row.config_hash, trace_of(record_of(USUAL[1], 0)))
    with pytest.raises(BadInput, match="its record's peak is"):
        compare_folders(f"{tmp_path}:backprop", f"{tmp_path}:checkpointing")


def test_the_command_prints_the_page_or_markdown(runs: tuple[Path, Path]) -> None:
    """Broken if ``dbbench diff`` drops an option, or bad input does not end it with status 2."""
    sides = [f"{runs[0]}:backprop", f"{runs[0]}:checkpointing"]
    plain = CliRunner().invoke(app, ["diff", *sides])
    assert plain.exit_code == 0, plain.output
    assert "What changed at the peak, largest first" in plain.stdout
    sides = [f"{runs[1]}:backprop", f"{runs[1]}:linear"]
    markdown = CliRunner().invoke(app, ["diff", *sides, "--markdown", "--rows", "1"])
    assert "| role | before, MiB |" in markdown.stdout and "everything else" in markdown.stdout
    wrong = CliRunner().invoke(app, ["diff", "nowhere", sides[0]])
    assert wrong.exit_code == 2 and wrong.stderr == "dbbench: nowhere: no such folder\n"
