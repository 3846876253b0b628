"""Methods that go wrong in every way a process can."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time

import torch

from dbbench.methods.backprop import Backprop
from dbbench.methods.base import Plan, StepReport
from dbbench.tasks.base import Batch


class Raises(Backprop):
    """An exception of two lines, with what a display could take for markup."""

    def step(self, batch: Batch, plan: Plan) -> StepReport:
        raise ValueError("the toy broke\n[red]on purpose[/red]" + "!" * 400)


class EatsTensorMemory(Backprop):
    """A real refusal of torch's CPU allocator, which raises a RuntimeError like any other."""

    def step(self, batch: Batch, plan: Plan) -> StepReport:
        raise AssertionError(f"nobody has {torch.empty(1 << 60).numel()} floats")


class LeavesNan(Backprop):
    """Its loss is fine, and one of its parameters is no number from the fourth step on."""

    def step(self, batch: Batch, plan: Plan) -> StepReport:
        report = super().step(batch, plan)
        if plan.step >= 3:
            with torch.no_grad():
                next(iter(self.model.parameters())).view(-1)[0] = torch.nan
        return StepReport(torch.zeros(()), report.layers_updated, report.samples)


class LosesItsLoss(Backprop):
    """Its loss overflows in one step and is a number again in the next."""

    def step(self, batch: Batch, plan: Plan) -> StepReport:
        report = super().step(batch, plan)
        loss = torch.full((), torch.inf) if plan.step == 6 else report.loss
        return StepReport(loss, report.layers_updated, report.samples)


class KillsItself(Backprop):
    """What the system's out-of-memory killer looks like from outside."""

    def step(self, batch: Batch, plan: Plan) -> StepReport:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("a dead process goes on")


class Exits(Backprop):
    """Leaves without a word, as a crashing library does."""

    def step(self, batch: Batch, plan: Plan) -> StepReport:
        ctypes.CDLL(None)._exit(7)  # Python's own is caught, and says where it was called


class Hangs(Backprop):
    """Never comes back, and has a child of its own that does not either."""

    def step(self, batch: Batch, plan: Plan) -> StepReport:
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        time.sleep(600)
        raise AssertionError("ten minutes have passed")


class Prints(Backprop):
    """Shouts, and reads from standard input, which must be neither the order nor the lifeline."""

    def step(self, batch: Batch, plan: Plan) -> StepReport:
        print('{"failed": "killed", "error": "a shout taken for a report"}')
        assert sys.stdin.read() == ""
        return super().step(batch, plan)
