"""The verb that guards what there is: ``check`` holds a run, or a suite on fake tensors, against a baseline."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from dbbench.cli.app import Force, Only, Settings, absolute, app, console, make_plan, warn
from dbbench.errors import BadInput
from dbbench.files import check_outputs, check_own, probe

if TYPE_CHECKING:
    from dbbench.gate.baseline import Baseline
    from dbbench.gate.check import Measurement
    from dbbench.gate.measure import Estimated
    from dbbench.gate.result import Result
    from dbbench.gate.tolerance import Tolerance


@app.command()
def check(
    run: Annotated[Path | None, typer.Argument(metavar="RUN", help="A run's folder, such as runs/vision.")] = None,
    baseline: Annotated[Path, typer.Option(metavar="FILE", help="The file that says what is expected.")] = ...,  # type: ignore[assignment]
    fake: Annotated[
        str | None, typer.Option(metavar="SUITE", help="In the place of a run: a suite's cells on fake tensors.")
    ] = None,
    settings: Settings = None,
    only: Only = None,
    update: Annotated[bool, typer.Option("--update", help="Write what was measured into the file.")] = False,
    prune: Annotated[bool, typer.Option("--prune", help="With --update: take out cells that are no more.")] = False,
    time: Annotated[
        str | None, typer.Option(metavar="SHARE", help="Compare the time of a step too, such as 20%.")
    ] = None,
    github: Annotated[
        bool | None, typer.Option("--github/--no-github", help="Annotations and step summary. [default: in Actions]")
    ] = None,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Write JUnit's XML.")] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write JSON; - prints it.")] = None,
    force: Force = False,
) -> None:
    """Hold a run's figures against a baseline, and name what grew or shrank: role, module and op.

    Exit status: 0 nothing changed; 1 a change; 2 bad input; 3 no baseline; 4 a cell failed or is missing; 5 a cell is
    not in the baseline; 6 another version of torch; 7 nothing compared. Where several apply all are said, and the
    lowest is the status.
    """
    from dbbench.gate.baseline import read

    _refuse(
        {
            "give either a run's folder or --fake SUITE": (run is None) == (fake is None),
            "--set and --only choose the cells of --fake SUITE; a run's are what they are": run and (settings or only),
            "--prune is a part of --update": prune and not update,
            "--update compares nothing that --junit or --json could show": update and (junit or json),
            "--time: fake tensors take no time; it is of a run": time is not None and fake is not None,
        }
    )
    outputs = {"--junit": junit, "--json": None if str(json) == "-" else json}
    check_outputs(outputs, {"the baseline": baseline, "the run": run, "the suite": Path(fake) if fake else None})
    check_own(junit, "--junit", [b"dbbench check "], force)
    check_own(outputs["--json"], "--json", [b'{\n "baseline":'], force)
    seconds, kept = _share(time), read(baseline)
    for path in (*outputs.values(), baseline if update else None):
        if path is not None:
            with _writing(path):
                probe(path)
    command = _command(run, fake, baseline, settings, only, time)
    target, junit, json = baseline.absolute(), absolute(junit), absolute(json)
    if kept is None and not update:
        _require_good_input(run, fake, settings or [], only)
        _tell(_no_baseline(str(run or fake), baseline, command), github, junit, json)
    if run is not None:
        measurement = _of_run(run, command, time is not None)
    else:
        measurement = _of_suite(str(fake), settings or [], only, command)
    if kept is None or update:
        _write(kept, baseline, target, measurement, prune)

    from dbbench.gate.check import check as compare

    _tell(compare(kept, measurement, seconds), github, junit, json)


def _require_good_input(run: Path | None, fake: str | None, settings: list[str], only: str | None) -> None:
    """Raise BadInput where what is to be measured cannot be: that comes before a baseline that is missing."""
    if run is not None:
        from dbbench.report.run import load

        load(run)
        return
    from dbbench.harness.resolve import resolve

    plan = make_plan(str(fake), settings, only, "cpu")
    resolve(plan.cells, plan.where)


def _refuse(mistakes: dict[str, object]) -> None:
    """Raise BadInput with the first of the ``mistakes`` that was made."""
    for words, made in mistakes.items():
        if made:
            raise BadInput(f"check: {words}")


def _share(time: str | None) -> Tolerance:
    from dbbench.gate.tolerance import OFF, parse

    try:
        within = OFF if time is None else parse(time)
    except ValueError as error:
        raise BadInput(f"--time: {error}") from error
    if within.kind == "noise":
        raise BadInput(f"--time: '{time}' is a tolerance of means over seeds; give a share, such as 20%")
    return within


def _command(
    run: Path | None, fake: str | None, baseline: Path, settings: list[str] | None, only: str | None, time: str | None
) -> str:
    """Return the command that writes what is measured into the baseline."""
    words = ["dbbench", "check", *(["--fake", fake] if fake else [str(run)])]
    for setting in settings or []:
        words += ["--set", setting]
    words += ["--only", only] if only else []
    words += ["--time", time] if time else []
    return shlex.join([*words, "--baseline", str(baseline), "--update"])


def _no_baseline(what: str, baseline: Path, command: str) -> Result:
    from dbbench.gate.result import NO_BASELINE, Result

    note = f"{baseline}: no such file; this writes it: {command}"
    return Result(
        baseline=str(baseline), measured=what, torch=[], update=command, cells=[], notes=[note],
        statuses=[NO_BASELINE], status=NO_BASELINE,
    )  # fmt: skip


def _of_run(folder: Path, command: str, with_seconds: bool) -> Measurement:
    from dbbench.gate.measure import from_run
    from dbbench.report.run import load

    return from_run(load(folder), command, with_seconds)


def _of_suite(suite: str, settings: list[str], only: str | None, command: str) -> Measurement:
    """Take the measuring pass of a suite's cells on fake tensors, one after another in this process."""
    from dbbench.estimate.suite import merged_seeds
    from dbbench.gate.measure import fake_names, from_estimates
    from dbbench.suite.overrides import select

    plan = make_plan(suite, settings, None, "cpu")
    whole = merged_seeds(plan.cells)
    names = fake_names(whole[0].suite, [(cell.variant, cell.network.depth) for cell in whole])
    by_cell = {cell.model_dump_json(exclude={"seed"}): name for cell, name in zip(whole, names, strict=True)}
    chosen = plan.cells if only is None else select(plan.cells, only)

    def estimated() -> Iterator[Estimated]:
        from dbbench.estimate.in_process import estimate_in_process

        for cell, record, events in estimate_in_process(merged_seeds(chosen), plan.where):
            yield by_cell[cell.model_dump_json(exclude={"seed"})], record, events

    with contextlib.redirect_stdout(sys.stderr):  # what a method prints must not get into --json -
        return from_estimates(plan.where, whole[0].suite, estimated(), only is None, command)


def _write(kept: Baseline | None, path: Path, target: Path, measurement: Measurement, prune: bool) -> NoReturn:
    """Write the baseline ``path``, which is at ``target`` wherever foreign code has gone, and say what changed in it.

    It ends with 0 where every cell could be measured.
    """
    from dbbench.gate.baseline import Baseline
    from dbbench.gate.result import FINE, MISSING_FROM_RUN, NOTHING_COMPARED
    from dbbench.gate.update import update

    for name, why in measurement.failed.items():
        warn(f"{name}: {why}; the baseline keeps what it had of it")
    for note in measurement.notes:
        warn(note)
    measured = [cell for cell in measurement.cells if cell.name not in measurement.failed]
    if not measured:
        warn(f"nothing was measured, and {path} is as it was")
        raise typer.Exit(MISSING_FROM_RUN if measurement.failed else NOTHING_COMPARED)
    found, told = update(kept or Baseline(path), measurement, prune)
    with _writing(path):
        replace(found, path=target).write()
    screen = console()
    screen.print(f"{path}: {'rewritten' if kept else 'created'}, {len(measured)} cells measured")
    for line in told or ["nothing changed"]:
        screen.print(line)
    raise typer.Exit(MISSING_FROM_RUN if measurement.failed else FINE)


def _tell(result: Result, github: bool | None, junit: Path | None, json: Path | None) -> NoReturn:
    """Put the outcome wherever it was asked for, and end with its status.

    With JSON on standard output the words for people go to standard error.
    """
    from dbbench.files import write_atomically
    from dbbench.gate import github as actions
    from dbbench.gate.junit import junit as to_junit
    from dbbench.gate.show import Report, commit_lines, shortened
    from dbbench.results.store import to_json

    printed = json is not None and str(json) == "-"
    screen = console()
    screen.stderr = printed
    screen.print(Report(result))
    lines = shortened(commit_lines(result))
    if lines:
        typer.echo("\nTo accept it, commit these lines of the baseline, or let it be written:", err=printed)
        typer.echo("\n".join([f"  {result.update}", *lines]), err=printed)
    if github if github is not None else os.environ.get("GITHUB_ACTIONS") == "true":
        for line in actions.workflow_commands(result, os.environ.get("GITHUB_WORKSPACE", "")):
            typer.echo(line, err=printed)
        summary = os.environ.get("GITHUB_STEP_SUMMARY")
        if summary:
            with _writing(Path(summary)):
                actions.write_summary(result, Path(summary))
    if junit is not None:
        with _writing(junit):
            write_atomically(junit, to_junit(result))
    if json is not None and printed:
        typer.echo(to_json(result).decode(), nl=False)
    elif json is not None:
        with _writing(json):
            write_atomically(json, to_json(result))
    raise typer.Exit(result.status)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn what keeps a file from being written into a line that names it."""
    try:
        yield
    except OSError as error:
        raise BadInput(f"{path}: cannot be written: {error.strerror}") from error
