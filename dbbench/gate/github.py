"""A check's outcome for GitHub Actions: annotations on the run, and the step's summary."""

from __future__ import annotations

import os
from pathlib import Path

from dbbench.files import append
from dbbench.gate.result import CellResult, Result
from dbbench.gate.show import headline, markdown, words
from dbbench.report import text

#: GitHub refuses a step's summary that is larger.
_LIMIT_BYTES = 1024 * 1024


def workflow_commands(result: Result, workspace: str = "") -> list[str]:
    """Return a workflow command for each cell that is not as expected, and one where nothing was compared.

    Paths are given from ``workspace``, the checkout's root.
    """
    file = _within(result.baseline, workspace)
    found = [_of_cell(cell, file, result) for cell in result.cells if cell.outcome != "same"]
    if result.status and not found:
        found.append(_command("error", {"file": file, "title": words(result.status)}, "; ".join(result.notes)))
    return found + [_command("notice", {"file": file}, note) for note in result.notes if found and result.cells]


def write_summary(result: Result, path: Path) -> None:
    """Append the outcome as Markdown to a step's summary."""
    body = markdown(result).encode(errors="replace")
    taken = path.stat().st_size if path.exists() else 0
    if len(body) + taken > _LIMIT_BYTES:
        body = f"### {text.escaped(result.baseline)}: {words(result.status)}\n".encode(errors="replace")
    append(path, body)


def _of_cell(cell: CellResult, file: str, result: Result) -> str:
    # what is not compared has a tolerance or a seed count that says so: no failure where others were compared
    level = "warning" if cell.outcome == "not compared" and result.status == 0 else "error"
    properties = {"file": file, "title": f"{cell.cell} ({cell.source}): {cell.outcome}"}
    lines = [finding.line for finding in cell.changed if finding.line is not None]
    if lines:
        properties["line"] = str(min(lines))
    said = [headline(cell)]
    said += [culprit.sentence for cause in cell.causes[:1] for culprit in cause.culprits[1:]]
    said += [f"to accept it: {result.update}"] if result.update else []
    return _command(level, properties, "\n".join(text.printable(line) for line in said))


def _command(level: str, properties: dict[str, str], message: str) -> str:
    given = ",".join(f"{name}={_property(text.printable(value))}" for name, value in sorted(properties.items()))
    return f"::{level} {given}::{_data(message)}"


def _data(words: str) -> str:
    return words.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(words: str) -> str:
    return _data(words).replace(":", "%3A").replace(",", "%2C")


def _within(path: str, workspace: str) -> str:
    if not workspace:
        return path
    whole = Path(os.path.realpath(path))
    root = Path(os.path.realpath(workspace))
    return str(whole.relative_to(root)) if whole.is_relative_to(root) else path
