"""A check's outcome as JUnit's XML: a test case for each group of a cell's metrics."""

from __future__ import annotations

from xml.etree import ElementTree as Tree

from dbbench.gate.result import CellResult, Finding, Result
from dbbench.gate.show import change, headline, words

#: Outcomes of a cell that has no figures to compare.
_WITHOUT_FIGURES = ("failed", "missing from the run", "missing from the baseline", "other torch")


def junit(result: Result) -> bytes:
    """Return the file's content."""
    suite = Tree.Element("testsuite", name=clean(f"dbbench check {result.baseline}"))
    for cell in result.cells:
        _cell(suite, cell)
    bad = suite.findall("testcase/failure") + suite.findall("testcase/error")
    if not len(suite) or (result.status and not bad):
        case = _case(suite, result.baseline, "check")
        if result.status:
            _problem(case, "failure", words(result.status), "\n".join(result.notes))
    counts = {name: len(suite.findall(f"testcase/{tag}")) for name, tag in _COUNTED.items()}
    root = Tree.Element("testsuites")
    for element in (root, suite):
        element.set("tests", str(len(suite)))
        for name in ("failures", "errors"):
            element.set(name, str(counts[name]))
    suite.set("skipped", str(counts["skipped"]))
    root.append(suite)
    Tree.indent(root)
    body: bytes = Tree.tostring(root, encoding="utf-8", xml_declaration=True)
    return body + b"\n"


_COUNTED = {"failures": "failure", "errors": "error", "skipped": "skipped"}


def clean(text: str) -> str:
    """Return ``text`` without the characters that XML 1.0 cannot hold."""
    return "".join(
        c for c in text if c in "\t\n\r" or " " <= c <= "\ud7ff" or "\ue000" <= c <= "\ufffd" or c >= "\U00010000"
    )


def _cell(suite: Tree.Element, cell: CellResult) -> None:
    if cell.outcome in _WITHOUT_FIGURES:
        case = _case(suite, cell.cell, cell.source)
        _problem(case, "error" if cell.outcome == "failed" else "failure", headline(cell), cell.reason)
        return
    groups: dict[str, list[Finding]] = {}
    for finding in cell.findings:
        groups.setdefault(finding.group, []).append(finding)
    for group, findings in groups.items():
        case = _case(suite, cell.cell, f"{cell.source}: {group}")
        changed = [finding for finding in findings if finding.verdict == "changed"]
        if changed:
            _problem(case, "failure", headline(cell), "\n".join(_details(cell, changed)))
        elif all(finding.verdict == "not compared" for finding in findings):
            Tree.SubElement(case, "skipped", message=clean(findings[0].why))


def _details(cell: CellResult, changed: list[Finding]) -> list[str]:
    lines = [change(finding) for finding in changed]
    for cause in cell.causes:
        lines += [cause.sentence, *(culprit.sentence for culprit in cause.culprits)]
    return [*lines, *cell.following]


def _case(suite: Tree.Element, cell: str, name: str) -> Tree.Element:
    return Tree.SubElement(suite, "testcase", classname=clean(cell), name=clean(name))


def _problem(case: Tree.Element, tag: str, message: str, details: str) -> None:
    Tree.SubElement(case, tag, message=clean(message), type="dbbench").text = clean(details)
