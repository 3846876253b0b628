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
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from typing import Any, NoReturn

from dbbench.errors import BadInput, WorkerDied

#: The first byte of an answer that is the text of a `BadInput`.
_REFUSED = b"!"


class Worker:
    """One worker as its parent sees it. ``where`` (the suite's file) opens the line of what goes wrong."""

    def __init__(self, module: str, where: str, environment: dict[str, str] | None = None) -> None:
        self._where = where
        self._unread = b""
        self.answers, far_end = os.pipe()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (it is closed with the worker)
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", module, str(far_end)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                pass_fds=[far_end],
                env=os.environ | {"PYTHONPATH": path} | (environment or {}),
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
        self._process.kill()
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
            line = answer(order)
        except BadInput as error:
            line = _REFUSED + json.dumps(str(error)).encode()
        line += b"\n"
        while line:
            line = line[os.write(descriptor, line) :]


def _listen(lifeline: Any, orders: queue.SimpleQueue[bytes]) -> None:
    for line in lifeline:
        orders.put(line)
    os._exit(0)
