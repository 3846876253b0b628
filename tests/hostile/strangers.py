"""A stranger's code that does one hostile thing in one place, the suites that name it, and the verbs that run it."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from click.testing import Result
from estimate.in_process import InProcess, estimate_cells
from typer.testing import CliRunner

from dbbench.cli import app
from dbbench.harness import worker
from dbbench.harness.child import Outcome, Work
from dbbench.results.store import RunFolder

#: What code can do to look like a success, or to take the process with it.
ENDS = {
    "exit": "sys.exit(0)",
    "exit_without_a_number": "raise SystemExit(None)",
    "exit_with_words": "sys.exit('all is well')",
    "_exit": "os._exit(0)",
    "_exit_that_is_swallowed": "quietly(lambda: os._exit(0))",
    "_exit_on_a_thread": "on_a_thread(lambda: os._exit(0))",
    "exec": "os.execv('/bin/true', ['true'])",
    "exec_by_name": "os.execlp('true', 'true')",
    "abort": "os.abort()",
    "interrupt": "raise KeyboardInterrupt",
    "generator_exit": "raise GeneratorExit",
    "base_exception": "raise BaseException('at the bottom')",
}
#: What goes wrong in code by itself.
RAISES = {
    "raise": "raise ValueError('it broke')",
    "stop": "raise StopIteration",
    "recursion": "again()",
    "attribute": "None.no_such_attribute",
    "import": "import no_such_module_anywhere",
    "without_words": "raise Unspeakable",
    "surrogate": r"raise RuntimeError('a file named \udc80')",
    "lines": r"raise RuntimeError('one\ntwo\n\nthree')",
    "long": "raise RuntimeError('x' * 100_000)",
}
#: What code may do, and what must then change nothing.
HARMLESS = {
    "print": "print('{\"status\": 0}')",
    "chdir": "os.chdir('/')",
    "chdir_to_nowhere": "os.chdir(nowhere())",
    "thread": "threading.Thread(target=time.sleep, args=(3,), daemon=True).start()",
    "exit_that_is_swallowed": "quietly(lambda: sys.exit(0))",
    "streams": "sys.stdout = sys.stderr = io.StringIO()",
    "handlers": "signal.signal(signal.SIGINT, signal.SIG_IGN)",
}
#: By the part of a suite that is a stranger's: where in it the thing is done.
PLACES = {
    "method": ("import", "check", "split", "init", "prepare", "plan", "rehearsal", "step", "predict"),
    "task": ("import", "shape", "init", "batch", "loss"),
    "network": ("import", "sizes", "numbers", "init", "embed", "read"),
}
#: Places that a fake pass never comes to, or that a run looks at only once it trains.
TRAINED_ONLY = {("task", "evaluation"), ("task", "measure")}

MODULE = """\
import io
import os
import signal
import sys
import tempfile
import threading
import time

from dbbench.methods.backprop import Backprop
from dbbench.networks.vit import ViT
from dbbench.tasks.image_classification import Digits

PLACE = {place!r}


class Unspeakable(Exception):
    def __str__(self):
        raise RuntimeError("it has no words")


def again():
    again()


def quietly(call):
    try:
        call()
    except BaseException:
        pass


def on_a_thread(call):
    thread = threading.Thread(target=quietly, args=(call,))
    thread.start()
    thread.join()


def nowhere():
    folder = tempfile.mkdtemp()
    os.rmdir(folder) if os.chdir(folder) is None else None
    return "."


def at(place):
    if place == PLACE:
        {code}


at("import")


class Method(Backprop):
    @classmethod
    def check(cls, options, depth):
        at("check")

    @classmethod
    def split(cls, options, depth):
        at("split")
        return [depth]

    def __init__(self, *arguments):
        at("init")
        super().__init__(*arguments)

    def prepare(self):
        at("prepare")
        super().prepare()

    def plan(self, step, fraction):
        at("plan")
        return super().plan(step, fraction)

    def rehearsal(self):
        at("rehearsal")
        return super().rehearsal()

    def step(self, batch, plan):
        at("step")
        return super().step(batch, plan)

    def predict(self, inputs):
        at("predict")
        return super().predict(inputs)


class Task(Digits):
    @classmethod
    def input_shape(cls, options):
        at("shape")
        return super().input_shape(options)

    def __init__(self, *arguments):
        at("init")
        super().__init__(*arguments)

    def train_batch(self, index):
        at("batch")
        return super().train_batch(index)

    def loss(self, outputs, targets):
        at("loss")
        return super().loss(outputs, targets)

    def evaluation_batches(self, split):
        at("evaluation")
        yield from super().evaluation_batches(split)

    def measure(self, prediction, targets):
        at("measure")
        return super().measure(prediction, targets)


class Network(ViT):
    @classmethod
    def sizes(cls):
        at("sizes")
        return super().sizes()

    @classmethod
    def numbers(cls, *arguments):
        at("numbers")
        return super().numbers(*arguments)

    def __init__(self, *arguments, **options):
        at("init")
        super().__init__(*arguments, **options)

    def embed(self, inputs, target=None):
        at("embed")
        return super().embed(inputs, target)

    def read(self, x, context):
        at("read")
        return super().read(x, context)
"""

SUITE = """\
suite: strange
task: {{name: {task}}}
network: {{name: {network}, size: tiny, depth: 1, patch: 4}}
budget: {{kind: samples, value: 64}}
batch_size: 32
seeds: [0]
evaluations: 1
timeout_seconds: 60
methods:
  mine: {{method: {method}}}
"""

STEP = """

import torch


def make_step():
    at("make_step")
    model = torch.nn.Linear(4, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        at("step")
        model(torch.ones(2, 4)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    return model, optimizer, step
"""


@dataclass(frozen=True)
class Project:
    """A stranger's folder: their module, a suite that names it, and notes that are nobody's to touch."""

    folder: Path
    module: str

    @property
    def suite(self) -> Path:
        return self.folder / "strange.yaml"


def write_project(folder: Path, name: str, part: str, place: str, code: str) -> Project:
    """Write a project whose ``part`` (method, task or network) runs ``code`` at ``place``; all else is harmless."""
    (folder / f"{name}.py").write_text(MODULE.format(place=place, code=code) + (STEP if part == "training" else ""))
    names = {"task": "digits", "network": "vit", "method": "backprop"}
    names |= {part: f'"{name}:{part.title()}"'} if part in names else {}
    (folder / "strange.yaml").write_text(SUITE.format(**names))
    (folder / "notes.txt").write_text("mine\n")
    return Project(folder, name)


def dbbench(*arguments: str | Path) -> Result:
    """Run the command line in this process, its workers in it as well; GitHub does not listen."""
    environment = {"GITHUB_ACTIONS": "", "GITHUB_STEP_SUMMARY": ""}
    with in_this_process():
        return CliRunner().invoke(app, list(map(str, arguments)), env=environment)


@contextlib.contextmanager
def in_this_process() -> Iterator[None]:
    """Have what workers do done here: a process for each of some hundred cases would take an hour."""
    with contextlib.ExitStack() as patches:
        for target, stand_in in (
            ("dbbench.harness.scheduler.Child", ChildHere),
            ("dbbench.harness.scheduler.TICK_SECONDS", 0),
            ("dbbench.estimate.suite.estimate_cells", estimate_cells),
            ("dbbench.estimate.scaling.estimate_cells", estimate_cells),
            ("dbbench.estimate.fit.Workers", InProcess),
            ("dbbench.report.summary.write_report", lambda folder, _: RunFolder(folder).write_tables()),
        ):
            patches.enter_context(mock.patch(target, stand_in))
        yield


class ChildHere:
    """What `dbbench.harness.child.Child` is, its work done in this process as a worker does it."""

    process = -1

    def __init__(self, work: Work, folder: Path) -> None:
        self.work = work
        order, channel = json.loads(work.order(folder, 0)), mock.Mock()
        with contextlib.redirect_stderr(io.StringIO()):  # the log's
            code = worker.carry_out(order, channel)
        self._outcome = Outcome(*channel.fail.call_args.args) if code else Outcome("ok")

    def read(self) -> list[dict[str, Any]]:
        return []

    def stop(self, status: str, error: str) -> None:
        raise AssertionError("it is done as soon as it is started")

    def ended(self) -> Outcome:
        return self._outcome

    def kill(self) -> None:
        return
