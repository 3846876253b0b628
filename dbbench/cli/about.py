"""The verbs that say what there is: ``list`` and ``doctor``."""

from __future__ import annotations

import typer

from dbbench.cli.app import app, console
from dbbench.errors import BadInput


@app.command(name="list")
def list_all() -> None:
    """List the methods, tasks, networks and suites: what a suite's keys can name, and what `dbbench run` takes.

    Those of installed packages are among them. For example: dbbench list, then dbbench run smoke
    """
    from rich.table import Table

    from dbbench.suite.load import shipped_suites

    table = Table("kind", "name", "what it is", box=None, pad_edge=False)
    for group in ("methods", "tasks", "networks"):
        for name, summary in _summaries(group):
            table.add_row(group[:-1], name, summary)
    for name, path in shipped_suites().items():
        table.add_row("suite", name, path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# "))
    console().print(table)


@app.command()
def doctor() -> None:
    """Say what this machine can measure.

    What is missing stands with the command that installs it. The status is 1 if the default suite cannot run.
    For example: dbbench doctor, then the command in its last column
    """
    from rich.table import Table

    from dbbench.doctor import examine

    table = Table("", "what", "found", "to mend it", box=None, pad_edge=False)
    findings = examine()
    for finding in findings:
        table.add_row(finding.state, finding.what, finding.found, finding.remedy)
    console().print(table)
    raise typer.Exit(1 if any(finding.state == "broken" for finding in findings) else 0)


def _summaries(group: str) -> list[tuple[str, str]]:
    """Return the name and the first docstring line of everything in a plugin group; a broken one says why."""
    import inspect

    from dbbench.plugins import find, known

    found = []
    for name in sorted(known(group)):
        try:
            summary = (inspect.getdoc(find(group, name, group)) or "").partition("\n")[0]
        except BadInput as error:
            summary = str(error)
        found.append((name, summary))
    return found
