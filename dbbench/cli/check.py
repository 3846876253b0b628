"""The verb that guards what there is: ``check`` holds a run, or a suite on fake tensors, against a baseline."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from dbbench.cli.app import Force, Only, Settings, absolute, app, console, make_plan, warn
from dbbench.errors import BadInput, did_you_mean
from dbbench.files import check_outputs, check_own, probe

if TYPE_CHECKING:
    from dbbench.gate.baseline import Baseline
    from dbbench.gate.check import Measurement
    from dbbench.gate.measure import Estimated
    from dbbench.gate.result import Result
    from dbbench.gate.tolerance import Tolerance


#: How a comment on a pull request begins, by which the next one finds it.
COMMENT_MARK = "<!-- dbbench check -->"


class CheckDevice(StrEnum):
    """Where ``check`` takes a step of one's own."""

    fake = "fake"
    cpu = "cpu"
    cuda = "cuda"


@dataclass(frozen=True)
class _Wanted:
    """What is to be measured: one of a run's folder, a suite on fake tensors, and steps of one's own."""

    run: Path | None = None
    suite: str | None = None
    steps: tuple[str, ...] = ()
    device: str = "fake"
    settings: Mapping[str, Any] = field(default_factory=dict)
    whole: bool = False

    def measure(self, settings: list[str], only: str | None, command: str, with_seconds: bool) -> Measurement:
        """Measure it; ``command`` is what writes the result into the baseline."""
        if self.run is not None:
            return _of_run(self.run, command, with_seconds)
        if self.suite is not None:
            return _of_suite(self.suite, settings, only, command)
        from dbbench.gate.own_steps import from_profiles
        from dbbench.profile.steps import profiled

        what = self.steps[0] if len(self.steps) == 1 else f"{len(self.steps)} steps"
        with contextlib.redirect_stdout(sys.stderr):
            found = profiled(self.steps, self.device, self.settings)  # type: ignore[arg-type]
            return from_profiles(found, what, self.device, command, self.whole)

    def command(self, baseline: Path, settings: list[str], only: str | None, time: str | None) -> str:
        """Return the command that writes what is measured into the baseline."""
        words = ["dbbench", "check", *(["--fake", self.suite] if self.suite else [])]
        words += [str(self.run)] if self.run else [] if self.whole else list(self.steps)
        words += ["--device", self.device] if self.steps and self.device != "fake" and not self.whole else []
        for name, value in self.settings.items() if not self.whole else ():
            words += [f"--{name}", str(value)] if value is not None else []
        for setting in settings:
            words += ["--set", setting]
        words += ["--only", only] if only else []
        words += ["--time", time] if time else []
        return shlex.join([*words, "--baseline", str(baseline), "--update"])

    def __str__(self) -> str:
        return str(self.run or self.suite or ", ".join(self.steps))


@app.command()
def check(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN | STEP…]",
            help="A run's folder, such as runs/vision; or training steps of your own: train.py:make_step, a saved "
            "profile's folder, hf:gpt2. [default: the steps that pyproject.toml lists]",
        ),
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The file that says what is expected. [default: pyproject's]")
    ] = None,
    fake: Annotated[
        str | None, typer.Option(metavar="SUITE", help="In the place of a run: a suite's cells on fake tensors.")
    ] = None,
    settings: Settings = None,
    only: Only = None,
    device: Annotated[CheckDevice | None, typer.Option(help="Where a step of your own runs. [default: fake]")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Of hf: models: samples a batch. [default: 2]")] = None,
    sequence: Annotated[int | None, typer.Option(min=1, help="Of hf: models: tokens a sample. [default: 128]")] = None,
    optimizer: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of hf: models: one of torch.optim. [default: adamw]")
    ] = None,
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
    markdown: Annotated[Path | None, typer.Option(metavar="FILE", help="Write Markdown, for a comment.")] = None,
    force: Force = False,
) -> None:
    """Hold a run, or training steps of your own, against a baseline, and name what grew or shrank: role, module and op.

    Exit status: 0 nothing changed; 1 a change; 2 bad input; 3 no baseline; 4 a cell failed or is missing; 5 a cell is
    not in the baseline; 6 another version of torch; 7 nothing compared. Where several apply all are said, and the
    lowest is the status.
    """
    from dbbench.gate.baseline import read
    from dbbench.gate.check import check as compare

    given = {"batch": batch, "sequence": sequence, "optimizer": optimizer}
    wanted, default_baseline = _wanted(targets or [], fake, device, given)
    if baseline is None and default_baseline is None:
        raise BadInput("check: --baseline FILE says what is expected; give one, or name it in pyproject.toml")
    baseline = baseline or default_baseline
    assert baseline is not None
    _refuse(
        {
            "--set and --only choose the cells of --fake SUITE": not wanted.suite and (settings or only),
            "--prune is a part of --update": prune and not update,
            "--update compares nothing that could be written": update and (junit or json or markdown),
            "--time: of a run alone; a suite or a step on fake tensors takes none": time is not None and not wanted.run,
        }
    )
    outputs = {"--junit": junit, "--json": None if str(json) == "-" else json, "--markdown": markdown}
    inputs = {"the baseline": baseline, "the run": wanted.run, "the suite": Path(fake) if fake else None}
    check_outputs(outputs, inputs | {f"the step {step}": _file_of(step) for step in wanted.steps})
    check_own(junit, "--junit", [b"dbbench check "], force)
    check_own(outputs["--json"], "--json", [b'{\n "baseline":'], force)
    check_own(markdown, "--markdown", [COMMENT_MARK.encode()], force)
    seconds, kept = _share(time), read(baseline)
    for path in (*outputs.values(), baseline if update else None):
        if path is not None:
            with _writing(path):
                probe(path)
    command = wanted.command(baseline, settings or [], only, time)
    target, files = baseline.absolute(), _Files(github, absolute(junit), absolute(json), absolute(markdown))
    if kept is None and not update:
        _require_good_input(wanted, settings or [], only)
        _tell(_no_baseline(str(wanted), baseline, command), files)
    measurement = wanted.measure(settings or [], only, command, time is not None)
    if kept is None or update:
        _write(kept, baseline, target, measurement, prune)
    _tell(compare(kept, measurement, seconds), files)


@dataclass(frozen=True)
class _Files:
    """Where the outcome goes besides the terminal; ``github`` None is: in GitHub Actions."""

    github: bool | None
    junit: Path | None
    json: Path | None
    markdown: Path | None


def _wanted(
    targets: list[str], fake: str | None, device: CheckDevice | None, given: Mapping[str, Any]
) -> tuple[_Wanted, Path | None]:
    """Return what is to be measured, and the baseline that pyproject.toml names, where it is asked."""
    from dbbench.gate.own_steps import is_step, read_project

    for_steps = {"--device": device, **{f"--{name}": value for name, value in given.items()}}
    of_steps = next((option for option, value in for_steps.items() if value is not None), "")
    if fake is not None or (len(targets) == 1 and not is_step(targets[0])):
        if fake is not None and targets:
            raise BadInput("check: give one of a run's folder, steps of your own, or --fake SUITE")
        if of_steps:
            raise BadInput(f"check: {of_steps} is for steps of your own")
        if fake is not None:
            return _Wanted(suite=fake), None
        return _Wanted(run=Path(targets[0])), None
    if targets:
        strangers = [target for target in targets if not is_step(target)]
        if strangers:
            raise BadInput(f"check: {strangers[0]}: is no step, such as train.py:make_step; a run is checked by itself")
        return _Wanted(steps=tuple(targets), device=device or "fake", settings=given), None
    project = read_project()
    if not project.steps:
        raise BadInput(
            "check: give a run's folder, a step of your own such as train.py:make_step, or --fake SUITE; or list steps "
            "in pyproject.toml, as [tool.dbbench.check] steps"
        )
    where = str(device or project.device or CheckDevice.fake)
    if where not in set(CheckDevice):
        raise BadInput(f"pyproject.toml: tool.dbbench.check.device: '{where}'{did_you_mean(where, CheckDevice)}")
    settings = {name: given[name] if given[name] is not None else (project.settings or {}).get(name) for name in given}
    return _Wanted(steps=project.steps, device=where, settings=settings, whole=True), project.baseline


def _file_of(step: str) -> Path | None:
    """Return the file or the folder that a step is read from, None where it is a module."""
    path = Path(step if Path(step).is_dir() else step.rpartition(":")[0])
    return path if path.exists() else None


def _require_good_input(wanted: _Wanted, settings: list[str], only: str | None) -> None:
    """Raise BadInput where what is to be measured cannot be: that comes before a baseline that is missing."""
    if wanted.run is not None:
        from dbbench.report.run import load

        load(wanted.run)
    elif wanted.suite is not None:
        from dbbench.harness.resolve import resolve

        plan = make_plan(wanted.suite, settings, only, "cpu")
        resolve(plan.cells, plan.where)
    else:
        from dbbench.profile.steps import require_steps

        require_steps(wanted.steps, dict(wanted.settings))


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


def _tell(result: Result, files: _Files) -> NoReturn:
    """Put the outcome wherever it was asked for, files before any text, and end with its status.

    With JSON on standard output the words for people go to standard error.
    """
    from dbbench.files import write_atomically
    from dbbench.gate import github as actions
    from dbbench.gate.junit import junit as to_junit
    from dbbench.gate.result import CHANGED
    from dbbench.gate.show import Report, commit_lines, shortened
    from dbbench.gate.show import markdown as as_markdown
    from dbbench.results.store import to_json

    json = files.json
    printed = json is not None and json.name == "-"
    in_actions = files.github if files.github is not None else os.environ.get("GITHUB_ACTIONS") == "true"
    summary = os.environ.get("GITHUB_STEP_SUMMARY") if in_actions else None
    if summary:
        with _writing(Path(summary)):
            actions.write_summary(result, Path(summary))
    if files.junit is not None:
        with _writing(files.junit):
            write_atomically(files.junit, to_junit(result))
    if files.markdown is not None:
        with _writing(files.markdown):
            write_atomically(files.markdown, f"{COMMENT_MARK}\n{as_markdown(result)}".encode())
    if json is not None and not printed:
        with _writing(json):
            write_atomically(json, to_json(result))
    screen = console()
    screen.stderr = printed
    screen.print(Report(result))
    lines = commit_lines(result)
    if CHANGED in result.statuses:
        how = ", or commit these lines" if lines else ""
        typer.echo(f"\nTo accept it, let the baseline be written{how}:", err=printed)
        typer.echo("\n".join([f"  {result.update}", *shortened(lines)]), err=printed)
    for line in actions.workflow_commands(result, os.environ.get("GITHUB_WORKSPACE", "")) if in_actions else ():
        typer.echo(line, err=printed)
    if printed:
        typer.echo(to_json(result).decode(), nl=False)
    raise typer.Exit(result.status)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn what keeps a file from being written into a line that names it."""
    try:
        yield
    except OSError as error:
        raise BadInput(f"{path}: cannot be written: {error.strerror}") from error
