"""What every verb shares: the application, its exit statuses, and how a suite on the command line becomes cells."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from dbbench.errors import BadInput, WorkerDied
from dbbench.files import check_own
from dbbench.foreign import Ended, in_words, process_kept
from dbbench.importing import importable_from
from dbbench.plain import harmless, printable

if TYPE_CHECKING:
    from rich.console import Console

    from dbbench.suite.cell import Cell


INTERRUPTED = 130

# torch's profiler library announces each of its stages on stderr unless told not to before torch is imported
os.environ.setdefault("KINETO_LOG_LEVEL", "99")
# figures go to files: a backend for a screen that is not here would end a run when all has been trained
os.environ["MPLBACKEND"] = "agg"


class _Verbs(TyperGroup):
    """Turns what ends a verb early into a line and its exit status.

    2 is for bad input, 1 for a lost process or a file that cannot be read or written, 130 for Ctrl-C. Foreign code that
    ends the process where nobody expects it is a failure, never a success.
    """

    def invoke(self, ctx: Any) -> Any:
        try:
            _require_working_folder()
            with process_kept():
                return super().invoke(ctx)
        except BadInput as error:
            self._end(str(error), 2, error)
        except WorkerDied as error:
            self._end(str(error), 1, error)
        except (Ended, SystemExit) as error:
            self._end(f"the code under test ended the command: {in_words(error)}", 1, error)
        except KeyboardInterrupt as error:
            self._end("interrupted", INTERRUPTED, error)
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                raise  # who reads has gone; click ends quietly
            if error.errno == errno.ENAMETOOLONG:
                self._end(f"{str(error.filename)[:80]}…: the path is too long", 2, error)
            named = f"{error.filename}: " if error.filename else ""
            self._end(f"{named}{error.strerror or error}; what was finished before is kept", 1, error)

    def _end(self, words: str, status: int, error: BaseException) -> NoReturn:
        warn(words)
        raise typer.Exit(status) from error


def _require_working_folder() -> None:
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise BadInput("the working folder is gone; change to one that is there") from error


app = typer.Typer(
    cls=_Verbs,
    help="Measures what memory-efficient training methods cost and what they learn.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _say_version(asked: bool) -> None:
    if asked:
        from dbbench import __version__

        typer.echo(f"dbbench {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@dataclass(frozen=True)
class Plan:
    """A suite's file, that file with what ``--set`` changed (as messages name it), the cells to run, where the trials
    behind the suite's numbers are, and how many cells the suite has in all."""

    file: str
    where: str
    cells: list[Cell]
    tuning: str | None
    of: int = 0


#: Arguments and options that several verbs take.
Settings = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change the suite; repeatable.")]
Only = Annotated[
    str | None, typer.Option(metavar="FILTER", help="Cells: method=a,b,seed=0; also variant, task, depth.")
]
Headroom = Annotated[str, typer.Option(metavar="SIZE", help="Memory left to the context and libraries: an allowance.")]
AllocConf = Annotated[
    str, typer.Option("--alloc-conf", metavar="SETTINGS", help="Simulate PYTORCH_ALLOC_CONF's settings.")
]
Processes = Annotated[int | None, typer.Option(min=1, help="Estimates at a time. [default: 2]")]
Force = Annotated[bool, typer.Option("--force", help="Write over files that dbbench did not write.")]
AsMarkdown = Annotated[bool, typer.Option("--markdown", help="Print Markdown.")]

#: What the CUDA context, cuBLAS and cuDNN take of a device's memory beside the allocator: an allowance, not a
#: measurement. An H100's context alone takes about as much.
HEADROOM = "512MiB"


def console(stderr: bool = False) -> Console:
    """Return the screen; what foreign code puts into a message cannot drive it."""
    from rich.console import Console
    from rich.segment import Segment

    class Screen(Console):
        def render(self, *args: Any, **kwargs: Any) -> Any:
            for part in super().render(*args, **kwargs):
                yield part if part.control else Segment(harmless(part.text), part.style)

    screen = Screen(markup=False, highlight=False, stderr=stderr)
    return screen if screen.is_terminal else Screen(markup=False, highlight=False, width=160, stderr=stderr)


def warn(words: str) -> None:
    """Say one line on standard error."""
    typer.echo(f"dbbench: {printable(words)}", err=True)


def absolute(path: Path | None) -> Path | None:
    """Return ``path`` so that it stays what it is when foreign code changes the working folder; ``-`` is none."""
    return path if path is None or str(path) == "-" else path.absolute()


def check_out(out: Path | None, kind: str, force: bool) -> None:
    """Raise BadInput where ``out`` cannot be the folder of a ``kind`` of result: a file, or somebody else's.

    ``KIND.json`` makes a folder one. ``force`` takes any folder.
    """
    if out is None or not out.exists():
        return
    file = f"{kind}.json"
    if not out.is_dir():
        raise BadInput(f"{out}: --out is a file, not a folder; nothing was written")
    if not force and any(out.iterdir()) and not (out / file).exists():
        raise BadInput(f"{out}: --out is a folder with other things in it and no {file}; give a new or an empty folder")
    check_own(out / file, "--out", [f'"{kind}_version"'.encode()], force)


def make_plan(reference: str, settings: list[str], only: str | None, device: Any) -> Plan:
    """Read, change, check and expand a suite; the options of its methods, task and network wait for torch."""
    from dbbench.suite.expand import expand
    from dbbench.suite.load import load_suite
    from dbbench.suite.overrides import select, with_settings
    from dbbench.suite.schema import Suite, check

    raw, file = load_suite(reference)
    where = file
    if file == reference:  # not one that ships with dbbench: methods of one's own may lie beside it
        importable_from(Path(file).parent)
    suite = check(Suite, raw, where)
    if settings:
        where = " ".join([file, "with", *(f"--set {setting}" for setting in settings)])
        suite = check(Suite, with_settings(raw, settings), where)
    cells = expand(suite, device, where)
    return Plan(file, where, cells if only is None else select(cells, only), suite.tuning, len(cells))
