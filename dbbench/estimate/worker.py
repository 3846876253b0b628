"""A process that answers: orders go in as lines of JSON, answers come out as lines, and it never outlives its parent.

A worker is ``python -m MODULE DESCRIPTOR``, where the module calls `serve`. Orders come on its standard input, which is
a lifeline as well: when it ends, the parent is done or gone, and so is the worker, whatever it was doing. Answers leave
on the file descriptor, so that a method that prints disturbs nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from dbbench.errors import BadInput, WorkerDied
from dbbench.foreign import guarded, in_words
from dbbench.processes import python

#: Foreign code cannot call it while it is guarded; the lifeline can.
_end_process = os._exit
#: The first byte of an answer that is the text of a `BadInput`, and of one that says why there is none.
_REFUSED, _LOST = b"!", b"?"


class Worker:
    """One worker as its parent sees it. ``where`` (the suite's file) opens the line of what goes wrong."""

    def __init__(self, module: str, where: str, environment: dict[str, str] | None = None) -> None:
        self._where = where
        self._unread = b""
        self.answers, far_end = os.pipe()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (it is closed with the worker)
        try:
            self._process = subprocess.Popen(
                python(module, str(far_end)),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                pass_fds=[far_end],
                env=os.environ | (environment or {}),
                start_new_session=True,  # a terminal's Ctrl-C is for the parent, which ends its workers in order
            )
        finally:
            os.close(far_end)

    def send(self, order: dict[str, Any]) -> None:
        """Hand it an order; one at a time."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died; reading will say how
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()

    def read(self) -> bytes | None:
        """Read what has come, or wait for it; return the answer when it is whole.

        Raises BadInput where the worker did, and WorkerDied where it ended.
        """
        piece = os.read(self.answers, 1 << 20)
        self._unread += piece
        if not piece:
            raise WorkerDied(f"{self._where}: {self._last_words()}")
        if not self._unread.endswith(b"\n"):
            return None
        answer, self._unread = self._unread, b""
        if answer.startswith(_REFUSED):
            raise BadInput(json.loads(answer[1:]))
        if answer.startswith(_LOST):
            raise WorkerDied(f"{self._where}: a worker process failed with {json.loads(answer[1:])}")
        return answer

    def _last_words(self) -> str:
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
        return f"a worker process {how}{': ' + lines[-1][:300] if lines else ''}"

    def end(self) -> None:
        """End it, whatever it does; again does nothing."""
        if self._errors.closed:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):  # what it has started ends with it
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._errors.close()
        os.close(self.answers)


def serve(descriptor: int, answer: Callable[[dict[str, Any]], bytes]) -> NoReturn:
    """Answer orders until the lifeline ends; ``answer`` gives a line of JSON without its end, or raises BadInput."""
    os.set_inheritable(descriptor, False)  # what a method starts must not hold it open
    orders: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(sys.stdin.buffer, orders), daemon=True).start()
    while True:
        order = json.loads(orders.get())
        try:
            with guarded():
                line = answer(order)
        except BadInput as error:
            line = _REFUSED + json.dumps(str(error)).encode()
        except BaseException as error:  # at exit, Python aborts over the thread that waits for standard input
            traceback.print_exc()
            line = _LOST + json.dumps(in_words(error)).encode()
        line += b"\n"
        while line:
            line = line[os.write(descriptor, line) :]


def _listen(lifeline: Any, orders: queue.SimpleQueue[bytes]) -> None:
    for line in lifeline:
        orders.put(line)
    _end_process(0)
