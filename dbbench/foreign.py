"""The one boundary that all foreign code goes through: a user's method, task, network or training step.

    with guarded():
        method.step(batch, plan)

Inside it, nothing that the code does ends the process or passes for success: ``sys.exit``, ``os._exit``, a
KeyboardInterrupt of its own and the like become `Ended`, an ordinary exception. What it prints goes to standard error,
and afterwards the working folder and the standard streams are what they were.

What Python cannot see, such as a C library that calls ``exit``, is caught by whoever started the process: the worker's
parent, and for the command line `dbbench.cli.supervisor`.
"""

from __future__ import annotations

import os
import signal
import sys
import sysconfig
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import NoReturn

from dbbench.errors import BadInput, BrokenContract

#: What ends or replaces the process without an exception; the exec family is built on the last two.
_ENDS = ("_exit", "abort", "execv", "execve")
_INSTALLED = {"site-packages", "dist-packages"}
_MESSAGE_LENGTH = 300
_CODE_LENGTH = 120


class Ended(Exception):
    """Foreign code tried to end the process. Its text says how: ``SystemExit: 0``, ``os._exit(0) was called``."""


class CtrlC(KeyboardInterrupt):
    """The user's own Ctrl-C while foreign code ran, to tell it from a KeyboardInterrupt that the code raised."""


@contextmanager
def guarded() -> Iterator[None]:
    """Run foreign code inside; see the module. Exceptions pass through; not for a block that a generator yields in."""
    streams, folder = (sys.stdout, sys.stderr), os.open(".", getattr(os, "O_PATH", os.O_RDONLY))
    try:
        with redirect_stdout(sys.stderr), _interrupts_marked() as marked, process_kept():
            try:
                yield
            except Exception:
                raise
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt) and (isinstance(error, CtrlC) or not marked):
                    raise
                raise Ended(_message(error)).with_traceback(error.__traceback__) from error
    finally:
        sys.stdout, sys.stderr = streams
        os.fchdir(folder)
        os.close(folder)


@contextmanager
def process_kept() -> Iterator[None]:
    """Make ``os._exit`` and its like raise `Ended` inside, and afterwards again if that was swallowed.

    A process that is forked meanwhile ends as it likes.
    """
    owner, called = os.getpid(), list[Ended]()
    real = {name: getattr(os, name) for name in _ENDS}
    for name in _ENDS:
        setattr(os, name, _refusal(name, real[name], owner, called))
    try:
        yield
    except Ended:
        raise
    except BaseException as error:
        if called:
            raise called[0] from error
        raise
    finally:
        for name in _ENDS:
            setattr(os, name, real[name])
    if called:
        raise called[0]


def _refusal(name: str, real: Callable[..., NoReturn], owner: int, called: list[Ended]) -> Callable[..., NoReturn]:
    def refused(*arguments: object) -> NoReturn:
        if os.getpid() != owner:
            real(*arguments)
        shown = repr(arguments[0]) if arguments and isinstance(arguments[0], (int, str)) else ""
        ended = Ended(f"os.{name}({shown}) was called")
        called.append(ended)
        raise ended

    return refused


@contextmanager
def _interrupts_marked() -> Iterator[bool]:
    """Have Ctrl-C raise `CtrlC` inside; yields whether a plain KeyboardInterrupt can only be the code's own.

    Only the main thread hears of Ctrl-C. Where somebody else handles it, nothing can be told.
    """
    if threading.current_thread() is not threading.main_thread():
        yield True
        return
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:
        yield before in (_raise_ctrl_c, signal.SIG_IGN, signal.SIG_DFL)
        return
    signal.signal(signal.SIGINT, _raise_ctrl_c)
    try:
        yield True
    finally:
        signal.signal(signal.SIGINT, before)


def _raise_ctrl_c(number: int, frame: FrameType | None) -> None:
    raise CtrlC


# -- saying where foreign code went wrong -----------------------------------------------------------------------------


def in_words(error: BaseException, most: int = _MESSAGE_LENGTH) -> str:
    """Return the error in one line of text that every encoding of Unicode can write, ``most`` characters and its place.

    The place is the line of the user's own code that the error left last.
    """
    if isinstance(error, BadInput):
        return _message(error)
    message = _message(error)
    return (message if len(message) <= most else message[: most - 1] + "…") + place_of(error)


def _message(error: BaseException) -> str:
    """Return ``Type: text`` on one line; for our own kinds the text alone."""
    try:
        text = str(error)
    except BaseException:  # foreign code as well
        text = "(its text cannot be had)"
    text = " ".join(text.encode("utf-8", "backslashreplace").decode().split())
    if isinstance(error, (BadInput, BrokenContract, Ended)):
        return text
    name = type(error).__name__
    return f"{name}: {text}" if text else name


def place_of(error: BaseException) -> str:
    """Return `` (file:line: code)`` of the innermost frame that is neither torch's, ours nor a library's, or ''.

    Where the error has none, it is that of the error which caused it.
    """
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({_relative(error.filename)}:{error.lineno})"
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [f for f in frames if f.filename[:1] != "<" and not _is_a_librarys(_resolved(f.filename))]
    if not theirs:
        cause = error.__cause__ or error.__context__
        return place_of(cause) if cause is not None else ""
    last, code = theirs[-1], (theirs[-1].line or "")
    code = code if len(code) <= _CODE_LENGTH else code[: _CODE_LENGTH - 1] + "…"
    return f" ({_relative(last.filename)}:{last.lineno}{f': {code}' if code else ''})"


def kind_of(thing: object) -> str:
    """Name what was given, with its article: ``a function``, ``an int``, ``None``."""
    if thing is None:
        return "None"
    name = "class" if isinstance(thing, type) else type(thing).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def _is_a_librarys(path: str) -> bool:
    return path.startswith(_NOT_THEIRS) or not _INSTALLED.isdisjoint(Path(path).parts)


def _relative(filename: str) -> str:
    """Name a file as its package does: below the working folder, else below where it is imported from."""
    path = Path(_resolved(filename))
    for entry in ("", *sys.path):
        folder = Path(_resolved(entry))
        if path.is_relative_to(folder) and len(folder.parts) > 1:
            return str(path.relative_to(folder))
    return filename


def _resolved(filename: str) -> str:
    try:
        return str(Path(filename).resolve())
    except OSError:  # the working folder is gone, or the path goes in circles
        return filename


def _library_folders() -> Iterator[Path]:
    """Yield where code lives that no user wrote: an error is said to be where it left theirs."""
    yield Path(__file__).parent
    yield Path(sysconfig.get_path("stdlib"))
    spec = find_spec("torch")
    if spec is not None and spec.origin is not None:
        yield Path(spec.origin).parent


_NOT_THEIRS = tuple(f"{folder.resolve()}{os.sep}" for folder in _library_folders())
