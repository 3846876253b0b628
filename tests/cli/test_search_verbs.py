"""The verbs ``fit`` and ``scaling``: what they refuse in a line, what they print, and the folders they leave."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from dbbench.cli import app
from dbbench.results.fit import read_fit
from dbbench.results.scaling import read_scaling

SUITE = """
suite: tiny
task: {name: images, image_size: 8, classes: 10}
network: {name: vit, size: micro, depth: 4, patch: 4}
budget: {kind: samples, value: 320}
batch_size: 4
seeds: [0, 1]
methods:
  backprop: {}
  checkpointing: {policy: sqrt}
  diffusion_blocks: {blocks: 2, residency: active}
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(SUITE)
    return path


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fit", "--memory", "24XiB"], "--memory: unknown unit 'XiB'"),
        (["fit", "--memory", "1MiB", "--headroom", "1MiB"], "no more than the headroom"),
        (["fit", "--memory", "24GiB", "--over", "sequence"], "task.name: 'images' has no option 'sequence_length'"),
        (["fit", "--memory", "24GiB", "--alloc-conf", "expandable:True"], "expandable"),
        (["scaling", "--over", "depth", "--values", "4,x"], "--values 4,x: must be different whole numbers"),
        (["scaling", "--over", "depth", "--values", "4"], "two values or more"),
        (["scaling", "--over", "blocks", "--values", "2,8"], "at blocks 8: methods.diffusion_blocks.blocks: 8 is more"),
        (["scaling", "--over", "blocks", "--only", "method=backprop"], "no variant's method has blocks"),
        (["scaling", "--over", "width", "--values", "32,33"], "network.width: 33 is no multiple of"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(suite: Path, arguments: list[str], words: str) -> None:
    """Broken if a slip starts a search, or shows a traceback."""
    verb, *options = arguments
    result = CliRunner().invoke(app, [verb, str(suite), *options])
    assert result.exit_code == 2, result.output
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_nobodys_folder_is_filled(suite: Path, tmp_path: Path) -> None:
    """Broken if results are written among other things, or over a file."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    for out, words in (("mine", "other things in it and no scaling.json"), ("tiny.yaml", "is a file, not a folder")):
        result = CliRunner().invoke(app, ["scaling", str(suite), "--out", str(tmp_path / out)])
        assert (result.exit_code, words in result.stderr) == (2, True), result.stderr
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


@pytest.mark.slow
def test_a_fit_and_a_scaling_from_end_to_end_and_rebuilt(suite: Path, tmp_path: Path) -> None:
    """Broken if worker processes, search, tables, figures and claims do not come together, or a rebuild differs."""
    fit, depth, runner = tmp_path / "fit", tmp_path / "depth", CliRunner()
    arguments = ["fit", str(suite), "--memory", "24MiB", "--memory", "48MiB", "--headroom", "0B", "--max", "4000"]
    done = runner.invoke(app, [*arguments, "--out", str(fit)])
    assert done.exit_code == 0, done.output
    assert "largest batch in 24 MiB" in done.stdout
    found = read_fit(fit)
    assert [line.variant for line in found.lines] == ["backprop", "checkpointing", "diffusion_blocks"]
    assert all(edge.largest is not None and edge.following == edge.largest + 1 for edge in found.lines[0].edges)
    done = runner.invoke(app, ["scaling", str(suite), "--values", "4,9,16", "--out", str(depth), "--markdown"])
    assert done.exit_code == 0, done.output
    assert done.stdout == (depth / "scaling.md").read_text().replace(_figure(depth), "")
    assert [line.variant for line in read_scaling(depth).lines] == ["backprop", "checkpointing", "diffusion_blocks"]
    files = [path for folder in (fit, depth) for path in folder.rglob("*") if path.is_file()]
    before = {path: path.read_bytes() for path in files}
    done = runner.invoke(app, ["report", str(fit), str(depth), "--claims", str(tmp_path / "claims.md")])
    assert done.exit_code == 0, done.output
    assert before == {path: path.read_bytes() for path in files}
    claims = (tmp_path / "claims.md").read_text()
    row = next(line for line in claims.splitlines() if line.startswith("| `scaling-checkpointing-state`"))
    assert row.endswith("| holds |")


def _figure(folder: Path) -> str:
    """Return the paragraphs of the folder's page that show its figure: what is printed has none."""
    page = (folder / "scaling.md").read_text()
    start = page.index("![memory over")
    return page[start : page.index("## Exponents")]
