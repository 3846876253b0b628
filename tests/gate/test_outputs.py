"""What a check leaves for machines: annotations, a step's summary, JUnit's XML and JSON, names of any kind in them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report.synthetic import USUAL, Variant, build
from typer.testing import CliRunner

from dbbench.cli import app
from dbbench.gate.baseline import Baseline
from dbbench.gate.cells import AT_PEAK, Cell, Figure
from dbbench.gate.check import Measurement, check
from dbbench.gate.github import workflow_commands, write_summary
from dbbench.gate.junit import clean, junit
from dbbench.gate.result import Result
from dbbench.gate.show import Report, markdown
from dbbench.results.record import Held

ODD = "s/<script>&\"'`|:,%\n::error::\x00\x1b[31m\ud800#x\\input{y}"


def cell(name: str, size: int, module: str = "layers.0") -> Cell:
    held = [Held(role="activations", module=module, op="aten.mm", holder="input of mm", bytes=size, storages=1)]
    names = ("peak_bytes", "activations_bytes", "activations_own_peak_bytes")
    figures = {metric: Figure(size) for metric in names} | {"flops_step": Figure(7)}
    return Cell(name, "fake", "2.13.0", figures, {AT_PEAK: held})


def result(before: list[Cell], after: list[Cell], **failed: str) -> Result:
    baseline = Baseline(Path("baselines/s.txt"), {c.key: c for c in before}, {c.key[:2] for c in before})
    for line, one in enumerate(before):
        baseline.places |= {(one.key, metric): 10 * line + place for place, metric in enumerate(one.figures, 3)}
    return check(baseline, Measurement("s.yaml", after, failed, {"s"}, {"fake"}, "dbbench check … --update"))


@pytest.fixture
def changed() -> Result:
    return result([cell("s/a", 100), cell("s/b", 100), cell("s/c", 1)], [cell("s/a", 164), cell("s/b", 100)])


def commands(lines: list[str]) -> list[dict[str, str]]:
    """Read workflow commands as GitHub's runner does."""
    found = []
    for line in lines:
        assert "\n" not in line and "\r" not in line
        match = re.fullmatch(r"::(?P<level>\w+) (?P<properties>[^:]*)::(?P<data>.*)", line)
        assert match is not None, line
        properties = dict(piece.split("=", 1) for piece in match["properties"].split(","))
        for text, character in (("%3A", ":"), ("%2C", ","), ("%0D", "\r"), ("%0A", "\n"), ("%25", "%")):
            properties = {name: value.replace(text, character) for name, value in properties.items()}
        data = match["data"].replace("%0D", "\r").replace("%0A", "\n").replace("%25", "%")
        found.append({"level": match["level"], "message": data} | properties)
    return found


def test_an_annotation_names_the_culprit_at_its_line(changed: Result) -> None:
    """Broken if the pull request shows that something failed and not what, where, or how to accept it."""
    first, second = commands(workflow_commands(changed))
    assert (first["level"], first["file"], first["line"]) == ("error", "baselines/s.txt", "3")
    assert first["title"] == "s/a (fake): changed"
    assert "activations +64 % (+<0.01 MiB)" in first["message"]
    assert "in layers.0: input of mm" in first["message"]
    assert first["message"].endswith("to accept it: dbbench check … --update")
    assert (second["title"], second["level"]) == ("s/c (fake): missing from the run", "error")


def test_no_name_breaks_out_of_an_annotation() -> None:
    """Broken if a cell's or a module's name can end the command, or begin another."""
    lines = workflow_commands(result([cell(ODD, 1, ODD)], [cell(ODD, 2, ODD)]))
    (found,) = commands(lines)
    assert "<script>" in found["title"]
    assert "::error::" in found["title"]


def test_what_is_fine_has_no_annotation() -> None:
    """Broken if a green check leaves marks on every pull request."""
    assert workflow_commands(result([cell("s/a", 1)], [cell("s/a", 1)])) == []


def test_paths_are_given_from_the_checkout(changed: Result, tmp_path: Path) -> None:
    """Broken if an absolute path keeps GitHub from finding the line."""
    moved = changed.model_copy(update={"baseline": str(tmp_path / "baselines" / "s.txt")})
    assert commands(workflow_commands(moved, str(tmp_path)))[0]["file"] == "baselines/s.txt"
    assert commands(workflow_commands(moved, "/elsewhere"))[0]["file"] == moved.baseline


def test_the_summary_is_appended_and_escaped(tmp_path: Path) -> None:
    """Broken if a step's earlier words are lost, or a name is shown as markup."""
    path = tmp_path / "summary.md"
    path.write_text("before\n")
    write_summary(result([cell(ODD, 1, ODD)], [cell(ODD, 2, ODD)]), path)
    text = path.read_text(errors="strict")
    assert text.startswith("before\n### baselines/s.txt: a change was found")
    prose, fence, commit = text.partition("```diff\n")
    assert fence and "<script>" not in prose.replace("\\<script\\>", "")
    body, fence, rest = commit.partition("```")
    assert fence and rest == "\n"
    assert all(line[0] in "+-" for line in body.splitlines())


def test_a_summary_never_grows_beyond_what_github_takes(tmp_path: Path) -> None:
    """Broken if a large change loses the whole summary, and the step with it."""
    path = tmp_path / "summary.md"
    path.write_bytes(b"x" * (1024 * 1024 - 200))
    write_summary(result([cell("s/a", 1)], [cell("s/a", 2)]), path)
    assert 1024 * 1024 - 200 < path.stat().st_size <= 1024 * 1024
    assert "a change was found" in path.read_text()[-200:]


#: Of Jenkins' junit-10.xsd: the attributes that each element may have, and its children.
SCHEMA = {
    "testsuites": ({"name", "tests", "failures", "errors", "disabled", "time"}, {"testsuite"}),
    "testsuite": (
        {
            "name",
            "tests",
            "failures",
            "errors",
            "skipped",
            "disabled",
            "time",
            "timestamp",
            "hostname",
            "id",
            "package",
        },
        {"properties", "testcase", "system-out", "system-err"},
    ),
    "testcase": ({"name", "classname", "assertions", "time", "status"}, {"skipped", "error", "failure", "system-out"}),
    "failure": ({"message", "type"}, set()),
    "error": ({"message", "type"}, set()),
    "skipped": ({"message", "type"}, set()),
}
REQUIRED = {"testsuite": {"name", "tests"}, "testcase": {"name", "classname"}}


def validated(body: bytes) -> ElementTree.Element:
    root = ElementTree.fromstring(body)
    assert root.tag == "testsuites"
    for element in root.iter():
        attributes, children = SCHEMA[element.tag]
        assert element.attrib.keys() <= attributes
        assert element.attrib.keys() >= REQUIRED.get(element.tag, set())
        assert {child.tag for child in element} <= children
    (suite,) = root
    for name, tag in (("tests", "testcase"), ("failures", "testcase/failure"), ("errors", "testcase/error")):
        assert int(suite.attrib[name]) == len(suite.findall(tag))
    return suite


def test_junit_has_a_case_for_each_group_of_a_cell(changed: Result) -> None:
    """Broken if a CI server refuses the file, or shows one failure for all that failed."""
    suite = validated(junit(changed))
    cases = {(case.attrib["classname"], case.attrib["name"]): case for case in suite}
    figures = {(name, f"fake: {group}") for name in ("s/a", "s/b") for group in ("memory", "FLOPs")}
    assert set(cases) == figures | {("s/c", "fake")}
    failed = {key for key, case in cases.items() if case.find("failure") is not None}
    assert failed == {("s/a", "fake: memory"), ("s/c", "fake")}
    failure = cases["s/a", "fake: memory"].find("failure")
    assert failure is not None and "in layers.0: input of mm" in failure.attrib["message"]
    assert "peak_bytes 100 → 164" in str(failure.text)


@pytest.mark.parametrize(
    "outcome",
    [
        result([], []),
        result([cell("s/a", 1)], [cell("s/a", 1)]),
        result([cell("s/a", 1)], [], **{"s/a": "cannot be estimated: \x00no"}),
        result([], [cell(ODD, 1)]),
        result([Cell("s/a", "fake", "2.12.0", {})], [cell("s/a", 1)]),
    ],
)
def test_junit_is_valid_whatever_the_outcome(outcome: Result) -> None:
    """Broken if a check that compared nothing is an empty file, which CI servers take for a success."""
    suite = validated(junit(outcome))
    assert len(suite) > 0
    bad = int(suite.attrib["failures"]) + int(suite.attrib["errors"])
    assert (bad > 0) == (outcome.status != 0)


@settings(max_examples=200)
@given(text=st.text())
def test_xml_holds_any_text(text: str) -> None:
    """Broken if a control character in an error's text makes the file one that no parser reads."""
    element = ElementTree.Element("a", name=clean(text))
    again = ElementTree.fromstring(ElementTree.tostring(element, encoding="utf-8"))
    assert again.attrib["name"].split() == clean(text).split()
    assert "\x00" not in clean(text)


def test_people_can_read_it_in_a_terminal(changed: Result) -> None:
    """Broken if names drive the terminal, or a cell without a change takes the room of one with."""
    shown = str(Report(result([cell(ODD, 1, ODD)], [cell(ODD, 2, ODD)])))
    assert "\x1b" not in shown and "\x00" not in shown
    assert "✗ s/b" not in str(Report(changed))
    assert str(Report(changed)).index("✗ s/a") < str(Report(changed)).index("activations +64 %")
    assert not any(line.lstrip().startswith("::") for line in shown.splitlines()), "GitHub would take it for a command"
    assert "✗ s/b" not in markdown(changed)


def test_all_outputs_come_from_one_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken if an output is forgotten in Actions, or JSON on standard output has other words in it."""
    build(tmp_path / "run", [USUAL[0]], curves=False)
    build(tmp_path / "other", [Variant(**(vars(USUAL[0]) | {"activations_mib": 90.0}))], curves=False)
    summary, xml, out = (tmp_path / name for name in ("summary.md", "junit.xml", "out.json"))
    environment = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(summary), "GITHUB_WORKSPACE": str(tmp_path)}
    monkeypatch.chdir(tmp_path)

    def dbbench(*arguments: str) -> Any:
        return CliRunner().invoke(app, ["check", *arguments, "--baseline", "b.txt"], env=environment)

    assert dbbench("run", "--update").exit_code == 0
    done = dbbench("other", "--junit", str(xml), "--json", str(out))
    assert done.exit_code == 1, done.output
    assert done.stdout.count("::error file=b.txt,line=") == 1
    assert "activations −30.00 MiB" in summary.read_text()
    assert validated(xml.read_bytes()).attrib["failures"] == "2"  # memory and phases
    assert json.loads(out.read_bytes())["cells"][0]["causes"][0]["role"] == "activations"
    done = dbbench("other", "--json", "-", "--no-github")
    assert Result.model_validate_json(done.stdout) == Result.model_validate_json(out.read_bytes())
    assert "::error" not in done.stderr and "activations −30.00 MiB" in done.stderr
