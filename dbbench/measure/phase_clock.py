"""Which phase of a step is running: marked where the code says so, inferred everywhere else, without a module hook.

Inside ``optimizer.step`` it is the optimizer (torch's global step hooks mark it). While an autograd graph task runs it
is the backward, or a recompute inside a checkpoint. Everything else is forward.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import torch

from dbbench.measure import private

#: (name, number): two forwards of one step have the same name and different numbers.
Phase = tuple[str, int]


class PhaseClock:
    """``ended`` is called with the numbers of the phases that have just ended."""

    def __init__(self, ended: Callable[..., None]) -> None:
        self._ended = ended
        self._marks: list[Phase] = []
        self._phase: Phase = ("setup", 0)
        self._numbers = count(1)
        self._tasks: list[int] = []  # the backwards that run, the outermost first
        self._recomputing = False

    def now(self) -> Phase:
        """Return the running phase, noticing on the way that another has ended."""
        if self._marks:
            return self._marks[-1]
        task = private.graph_task()
        if task == -1:
            if self._tasks:
                self._enter_forward()
            return self._phase
        if not self._tasks or self._tasks[-1] != task:
            self._enter_backward(task)
        # gradients on in a backward mean a reentrant recompute, or create_graph: the node tells them apart
        self._recomputing = torch.is_grad_enabled() and private.is_reentrant_recomputation(private.current_node())
        return ("recompute", _recompute(task)) if self._recomputing else self._phase

    def last(self) -> str:
        """Return the name of the phase that was running when it was last asked."""
        return self._marks[-1][0] if self._marks else self._phase[0]

    def mark(self, name: str | None) -> None:
        """Open the phase ``name``, or close the innermost open one with None."""
        if not self._marks:
            self.now()  # a backward that is over ends here
        if name is not None:
            self._marks.append((name, next(self._numbers)))
        elif self._marks:
            self._ended(self._marks.pop()[1])

    def begin_steps(self) -> None:
        """Leave set-up: from here on, unmarked work is forward or backward."""
        if self._phase[0] == "setup":
            self._enter_forward()

    def settle(self) -> None:
        """Notice that the phase which ran last has ended (a step is over)."""
        if not self._marks and self._phase[0] != "setup":
            self._enter_forward()

    @property
    def depth(self) -> int:
        """How many marked phases are open."""
        return len(self._marks)

    def close_marks(self, depth: int) -> None:
        """Close marked phases down to ``depth``: an exception in an optimizer leaves one open."""
        while len(self._marks) > depth:
            self._ended(self._marks.pop()[1])

    def _enter_forward(self) -> None:
        """End what was running; what comes is a forward until something else shows."""
        if self._tasks:
            self._end_tasks(0)
        else:
            self._ended(self._phase[1])
        self._phase = ("forward", next(self._numbers))

    def _enter_backward(self, task: int) -> None:
        if task in self._tasks:  # back from one that a reentrant checkpoint ran inside it
            self._end_tasks(self._tasks.index(task) + 1)
        else:
            if self._tasks and not self._recomputing:
                self._end_tasks(0)
            elif not self._tasks:
                self._ended(self._phase[1])
            self._tasks.append(task)
        self._phase = ("backward", _backward(task))

    def _end_tasks(self, keep: int) -> None:
        over = self._tasks[keep:]
        del self._tasks[keep:]
        for task in reversed(over):
            self._ended(_backward(task), _recompute(task))


class ThreadClock(PhaseClock):
    """The phases of another thread than the one that trains: its own backwards and marks, else what that one is in.

    Work beside a backward of the main thread is forward; what it makes outlives its phase when that backward ends.
    """

    def __init__(self, main: PhaseClock, ended: Callable[..., None]) -> None:
        super().__init__(ended)
        self._main, self._numbers = main, main._numbers

    def now(self) -> Phase:
        if not self._marks and private.graph_task() == -1:
            self._enter_forward()
        return super().now()

    def settle(self) -> None:
        if not self._marks:
            self._enter_forward()

    def _enter_forward(self) -> None:
        self._end_tasks(0)
        name, number = self._main._marks[-1] if self._main._marks else self._main._phase
        self._phase = ("forward" if name == "backward" else name, number)

    def _enter_backward(self, task: int) -> None:
        self._tasks = self._tasks or [task]  # the main thread's phase goes on
        super()._enter_backward(task)


def _backward(task: int) -> int:
    return -2 * task - 2


def _recompute(task: int) -> int:
    return -2 * task - 3
