"""The command ``dbbench``: it works in a child process, so that no code which it runs can make up the exit status.

The child says its status in so many words when it is done. One that ends without, because a library under test called
C's ``exit(0)`` or the system killed it, has not ended well, whatever its own status is. Nothing outlives the command.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from typing import NoReturn

from dbbench.plain import printable
from dbbench.processes import adopt_orphans, die_with_parent, end_orphans

_FAILED, _MISSING_FROM_RUN, _INTERRUPTED = 1, 4, 130
_ENDING = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT}
_PASSED_ON = {*_ENDING, signal.SIGUSR1, signal.SIGUSR2}
#: Kept from before any foreign code runs, which may replace it.
_end_process = os._exit


def main() -> NoReturn:
    """Run the command line and exit with its status."""
    if not hasattr(signal, "sigwaitinfo"):  # not Linux
        _work()
    reader, writer = os.pipe()
    adopt_orphans()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*_PASSED_ON, signal.SIGCHLD})
    parent, child = os.getpid(), os.fork()
    if child == 0:
        os.close(reader)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        die_with_parent()
        if os.getppid() != parent:  # it died before the kernel was asked to watch it
            _end_process(_FAILED)
        _work(writer)
    os.close(writer)
    status, words = _outcome(_wait_for(child), reader)
    strays = end_orphans(())
    if words:
        print(f"dbbench: {words}", file=sys.stderr)
    if strays:
        left = printable(", ".join(strays))
        print(f"dbbench: ended what the code under test had left running: {left}", file=sys.stderr)
    sys.exit(status)


def _work(writer: int | None = None) -> NoReturn:
    """Run the command line in this process, tell its status and end, whatever threads are left."""
    try:
        from dbbench.cli import app

        app(prog_name="dbbench")
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else _FAILED
    except KeyboardInterrupt:  # a second one, while the first was being said
        status = _INTERRUPTED
    except BaseException:
        traceback.print_exc()
        status = _FAILED
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # nobody reads it any more
            stream.flush()
    if writer is not None:
        os.write(writer, b"%d\n" % status)
    _end_process(status)


def _wait_for(child: int) -> int:
    """Wait until ``child`` ends and return how; a signal that somebody sends to this process is the child's.

    What a terminal sends it has already, as a member of the same group.
    """
    while True:
        come = signal.sigwaitinfo({*_PASSED_ON, signal.SIGCHLD})
        if come.si_signo != signal.SIGCHLD:
            if come.si_code <= 0:  # sent by a process, not by the kernel
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, come.si_signo)
            continue
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == child:
                    return os.waitstatus_to_exitcode(ended[1])


def _outcome(code: int, reader: int) -> tuple[int, str]:
    """Return the exit status, and what is to be said where the child did not say it."""
    os.set_blocking(reader, False)  # what the child has started may hold the other end open
    with contextlib.suppress(BlockingIOError):
        said = os.read(reader, 64)
        if said.endswith(b"\n"):
            return int(said), ""
    if -code in _ENDING:
        return _INTERRUPTED, f"interrupted by {signal.Signals(-code).name}"
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"was ended with status {code} by what it ran"
    status = _MISSING_FROM_RUN if sys.argv[1:2] == ["check"] else _FAILED
    return status, f"the process {how} before it was done; it says nothing of what was asked"
