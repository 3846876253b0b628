"""``figure`` and ``compare``: what they write, print, refuse and return."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from made_up import made_scaling
from synthetic import USUAL, build
from test_scaling_report import grows
from typer.testing import CliRunner

from dbbench.cli import app
from dbbench.report.scaling_table import write_scaling


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs")
    build(path / "a", variants=USUAL[:2], seeds=2)
    build(path / "b", variants=[USUAL[0], replace(USUAL[1], activations_mib=30.0)], seeds=2)
    lines = {"backprop": ("backprop", {}, grows(1)), "sqrt": ("checkpointing", {"policy": "sqrt"}, grows(0.5))}
    write_scaling(path / "depth", made_scaling("depth", lines))
    write_scaling(path / "blocks", made_scaling("blocks", lines))
    return path


def invoke(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(map(str, arguments)))
    return result.exit_code, result.stdout, result.stderr


def media_box(pdf: Path) -> float:
    """The width of a PDF's page, in points."""
    return float(pdf.read_bytes().split(b"/MediaBox [ 0 0 ")[1].split()[0])


def test_a_figure_lands_here_as_a_pdf_two_columns_wide(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert invoke("figure", "memory-split", runs / "a") == (0, "memory-split.pdf\n", "")
    assert media_box(tmp_path / "memory-split.pdf") == pytest.approx(6.9 * 72)
    assert [path.name for path in tmp_path.iterdir()] == ["memory-split.pdf"]


@pytest.mark.parametrize("suffix", ["pdf", "png", "svg"])
def test_each_kind_of_file_is_the_same_bytes_every_time(runs: Path, tmp_path: Path, suffix: str) -> None:
    """Broken if a figure holds a date or a random identifier; the date of a build is not to matter."""
    bodies = []
    for name in ("one", "two"):
        out = tmp_path / f"{name}.{suffix}"
        assert invoke("figure", "timeline", runs / "a", runs / "b", "--columns", "1", "--out", out)[0] == 0
        bodies.append(out.read_bytes())
    assert bodies[0] == bodies[1]
    assert {"pdf": b"%PDF", "png": b"\x89PNG", "svg": b"<?xml"}[suffix] == bodies[0][: 5 if suffix == "svg" else 4]


def test_scalings_have_their_own_figure(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "s.pdf"
    assert invoke("figure", "scaling", runs / "depth", "--columns", "1", "--out", out)[0] == 0
    assert media_box(out) == pytest.approx(3.35 * 72)
    status, _, said = invoke("figure", "scaling", runs / "depth", runs / "blocks", "--out", out)
    assert (status, "is over blocks" in said) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["pareot", "a"], "no figure 'pareot' (did you mean 'pareto'?)"),
        (["waterfall", "a"], "no figure waterfall: no variant has device peak bytes; nothing was written"),
        (["pareto", "a", "--out", "x.gif"], "a figure is a .png, .pdf, .svg file, not '.gif'"),
        (["pareto", "none"], "no such folder"),
        (["pareto", "depth"], "is a scaling, and pareto is a figure of runs"),
        (["scaling", "a"], "dbbench scaling --out writes it"),
    ],
)
def test_what_cannot_be_drawn_is_one_line_and_no_file(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    name, run, *rest = arguments
    status, _, said = invoke("figure", name, runs / run, *rest)
    assert (status, len(said.splitlines())) == (2, 1)
    assert words in said
    assert list(tmp_path.iterdir()) == []


def test_compare_shows_what_differs_and_counts_the_rest(runs: Path) -> None:
    status, said, _ = invoke("compare", runs / "a", runs / "b")
    assert status == 0
    lines = said.splitlines()
    (peak,) = [line for line in lines if " peak  " in line and "checkpointing" in line]
    for words in ("35.00 MiB", "43.00 MiB", "+8.00 MiB", "+22.9", "higher"):
        assert words in peak
    assert not any(line.startswith("backprop") for line in lines)
    assert "3 of 68 figures differ; 65 are the same, 0 differ within noise. --all shows every one." in said
    every = invoke("compare", runs / "a", runs / "b", "--all")[1]
    assert len(every.splitlines()) > 64


def test_compare_as_markdown_is_a_page(runs: Path) -> None:
    status, said, _ = invoke("compare", runs / "a", runs / "b", "--markdown")
    assert status == 0
    assert said.startswith("# a and b\n")
    assert "| `checkpointing` | peak | 35.00 MiB | 43.00 MiB | +8.00 MiB | +22.9 | higher |" in said


def test_compare_refuses_other_configurations_and_help_points_at_diff(runs: Path, tmp_path: Path) -> None:
    build(tmp_path, variants=[replace(USUAL[0], options={"policy": "none"})], seeds=1, traces=False, curves=False)
    status, _, said = invoke("compare", runs / "a", tmp_path)
    assert (status, len(said.splitlines())) == (2, 1)
    assert "backprop: options" in said and "--mismatched" in said
    assert invoke("compare", runs / "a", tmp_path, "--mismatched")[0] == 0
    assert "dbbench diff" in invoke("compare", "--help")[1]
