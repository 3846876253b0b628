"""The verbs for a method of one's own: ``new-method`` writes one, ``check-method`` holds one to the contract."""

from __future__ import annotations

import keyword
from pathlib import Path
from typing import Annotated, Any

import typer

from dbbench.cli.app import app, console, warn
from dbbench.errors import BadInput
from dbbench.files import write_atomically
from dbbench.importing import importable_from

_TEMPLATES = Path(__file__).parent.parent / "methods" / "template"
#: A suite in which any method of classification can be tried in seconds.
_TRIAL: dict[str, Any] = {
    "suite": "check-method",
    "task": {"name": "digits"},
    "network": {"name": "vit", "size": "tiny", "depth": 3, "patch": 4},
    "budget": {"kind": "samples", "value": 640},
    "batch_size": 16,
    "seeds": [0],
}


@app.command("new-method")
def new_method(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name, such as forward_forward.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where it goes.")] = Path("."),
) -> None:
    """Write a method to begin from, a suite that runs it beside backprop, and a test.

    For example: dbbench new-method forward_forward
    """
    if not name.isidentifier() or keyword.iskeyword(name) or not name.isascii():
        raise BadInput(f"new-method: '{name:.60}' is no name for a module, such as forward_forward")
    if name in _known():
        raise BadInput(f"new-method: there is a method '{name}' in dbbench already; give yours another name")
    kind = "".join(part.capitalize() for part in name.split("_"))
    files = {out / f"{name}.py": "method.py", out / f"{name}.yaml": "suite.yaml", out / f"test_{name}.py": "test.py"}
    for path in files:
        if path.exists() or path.is_symlink():
            raise BadInput(f"{path}: is there already; nothing was written")
    for path, template in files.items():
        text = (_TEMPLATES / f"{template}.txt").read_text().replace("NAME", name).replace("CLASS", kind)
        write_atomically(path, text.encode())
    screen = console()
    screen.print(f"{', '.join(map(str, files))}: written. Edit the step, then", soft_wrap=True)
    method, suite, test = files
    for words in (f"dbbench check-method {method}:{kind}", f"dbbench run {suite}", f"pytest {test}"):
        screen.print(f"  {words}", soft_wrap=True)


@app.command("check-method")
def check_method(
    method: Annotated[str, typer.Argument(metavar="METHOD", help="file.py:Class, package.module:Class, or a name.")],
    suite: Annotated[
        str | None, typer.Option(metavar="SUITE", help="Check it as this suite has it. [default: a ViT on digits]")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="OPTION=VALUE", help="An option of the method; repeatable.")
    ] = None,
) -> None:
    """Hold a method against the contract in a few real steps, and say what was checked.

    Exit status: 0 it keeps the contract; 1 it does not, with what it does; 2 bad input.
    For example: dbbench check-method forward_forward.py:ForwardForward
    """
    from dbbench.foreign import guarded, in_words
    from dbbench.harness import contract
    from dbbench.harness.resolve import resolve

    importable_from(Path("."))
    cell, where = _cell(method, suite, settings or [])
    resolve([cell], where)
    screen = console()
    try:
        with guarded():
            contract.check_method(cell, lambda line: screen.print(f"✓ {line}", markup=False, soft_wrap=True))
    except BadInput:
        raise
    except Exception as error:
        words = str(error) if isinstance(error, AssertionError) else in_words(error)
        warn(f"{words}" if words.startswith(method) else f"{method}: {words}")
        raise typer.Exit(1) from error
    screen.print(f"{method} keeps the contract.", markup=False)


def _cell(method: str, suite: str | None, settings: list[str]) -> tuple[Any, str]:
    """Return the cell to check, of the suite's variant of that method or of the trial's, and what messages call it."""
    from dbbench.cli.app import make_plan
    from dbbench.suite.expand import expand
    from dbbench.suite.overrides import with_settings
    from dbbench.suite.schema import Suite, check

    if suite is not None:
        if settings:
            raise BadInput("check-method: --set is for the trial's method; a suite's has its options there")
        plan = make_plan(suite, [], None, "cpu")
        found = next((cell for cell in plan.cells if method in (cell.method, cell.variant)), None)
        if found is None:
            known = ", ".join(dict.fromkeys(cell.variant for cell in plan.cells))
            raise BadInput(f"{plan.where}: no variant '{method}', nor one of that method (known: {known})")
        return found, plan.where
    raw = with_settings(_TRIAL | {"methods": {"mine": {"method": method}}}, (f"methods.mine.{s}" for s in settings))
    where = "check-method"
    return expand(check(Suite, raw, where), "cpu", where)[0], where


def _known() -> dict[str, str]:
    from dbbench import plugins

    return plugins.known("methods")
