"""Mistakes in an own method, task or network: one line before anything is trained, or a failed cell with its cause."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from hostile.folders import nothing_lost
from hostile.strangers import dbbench

SUITE = """\
suite: own
task: {{name: {task}}}
network: {{name: {network}, size: tiny, depth: 2, patch: 4}}
budget: {{kind: samples, value: 64}}
batch_size: 32
seeds: [0]
evaluations: 1
methods:
  mine: {{method: {method}}}
"""
HEAD = """\
import torch
from dbbench.methods.backprop import Backprop
from dbbench.networks.base import InputShape
from dbbench.networks.vit import ViT
from dbbench.tasks.image_classification import Digits

"""
METHOD = "class Own(Backprop):\n    @classmethod\n    def {}(cls, options, depth):\n        {}\n"
PREPARE = "class Own(Backprop):\n    def prepare(self):\n        {}\n"
PLAN = "class Own(Backprop):\n    blocks = 1\n    def plan(self, step, fraction):\n        {}\n"
NETWORK = "class Own(ViT):\n    {}\n"
TASK = "class Own(Digits):\n    {}\n"
#: What is found before anything is trained: the part, the class, and what the line must say.
EARLY = {
    "split gives nothing": ("method", METHOD.format("split", "return None"), "mine.split: gives None"),
    "split gives no block": ("method", METHOD.format("split", "return []"), "mine.split: gives []"),
    "split gives a number": ("method", METHOD.format("split", "return depth"), "mine.split: gives 2"),
    "split gives text": ("method", METHOD.format("split", "return ['1', '1']"), "mine.split: gives ['1', '1']"),
    "split gives too few": ("method", METHOD.format("split", "return [1]"), "sum to 2"),
    "split gives too many": ("method", METHOD.format("split", "return [2, 2]"), "sum to 2"),
    "split gives an empty block": ("method", METHOD.format("split", "return [2, 0]"), "one each at least"),
    "split gives a negative block": ("method", METHOD.format("split", "return [3, -1]"), "one each at least"),
    "split raises": ("method", METHOD.format("split", "raise KeyError('where')"), "KeyError: 'where'"),
    "check refuses": ("method", METHOD.format("check", "raise ValueError('depth: no')"), "methods.mine.depth: no"),
    "check raises": ("method", METHOD.format("check", "return options.nothing"), "AttributeError"),
    "check is no class method": ("method", "class Own(Backprop):\n    def check(self): pass\n", "TypeError"),
    "prepare raises": ("method", PREPARE.format("raise IndexError('too far')"), "IndexError: too far"),
    "prepare sets no model": ("method", PREPARE.format("self.optimizers = []"), "self.model to None"),
    "prepare sets no module": ("method", PREPARE.format("self.model, self.optimizers = 3, []"), "self.model to an int"),
    "prepare sets no optimizers": ("method", PREPARE.format("self.model = self.network"), "self.optimizers to None"),
    "prepare sets an optimizer": (
        "method", PREPARE.format("super().prepare(); (self.optimizers,) = self.optimizers"), "optimizers to an AdamW",
    ),
    "prepare changes the blocks": ("method", PREPARE.format("super().prepare(); self.blocks = 7"), "self.blocks to 7"),
    "prepare changes the split": (
        "method", PREPARE.format("super().prepare(); self.layers_per_block = [9]"), "gives [9] layers",
    ),
    "an option without a type": ("method", "class Own(Backprop):\n    class Options:\n        a = 3\n", "Options"),
    "a name without a module": ("network", NETWORK.format("presets = None"), "fails with"),
    "presets without fields": ("network", NETWORK.format("fields = ()"), "network.name"),
    "presets of text": (
        "network", NETWORK.format("presets, fields = {'tiny': ('2',)}, ('depth',)"), "whole number 'depth'",
    ),
    "a network that takes nothing": ("network", NETWORK.format("def __init__(self): pass"), "TypeError"),
    "a shape of nothing": ("task", TASK.format("input_shape = classmethod(lambda c, o: None)"), "'NoneType'"),
    "a shape without channels": (
        "task", TASK.format("input_shape = classmethod(lambda c, o: InputShape(classes=3))"), "says no channels",
    ),
    "a task that takes nothing": ("task", TASK.format("def __init__(self): pass"), "TypeError"),
}  # fmt: skip
#: What only work shows: the class, and what the failed cell's row must say.
LATE = {
    "plan gives nothing": ("method", PLAN.format("return None"), "gives block None; there are 1"),
    "plan gives no block": ("method", PLAN.format("return 3"), "gives block 3; there are 1"),
    "plan gives a negative block": ("method", PLAN.format("return -1"), "gives block -1; there are 1"),
    "rehearsal is empty": (
        "method",
        "class Own(Backprop):\n    def rehearsal(self): return []\n",
        "rehearsal() traces",
    ),
    "step takes nothing": ("method", "class Own(Backprop):\n    def step(self): pass\n", "TypeError"),
    "batches of nothing": ("task", TASK.format("def train_batch(self, index): return None"), "AttributeError"),
    "a loss that raises": ("task", TASK.format("def loss(self, o, t): return o @ o"), "own_late"),
    "a layer that does not fit": ("network", NETWORK.format("def read(self, x, context): return x[:, 0, 0]"), "Error"),
}


def write(folder: Path, name: str, part: str, code: str) -> None:
    (folder / f"{name}.py").write_text(HEAD + code)
    parts = {"task": "digits", "network": "vit", "method": "backprop"} | {part: f"'{name}:Own'"}
    (folder / "own.yaml").write_text(SUITE.format(**parts))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in ("own_early", "own_late"):
        sys.modules.pop(name, None)
    return tmp_path


@pytest.mark.parametrize("kind", EARLY)
def test_a_mistake_that_can_be_found_is_one_line_before_anything_is_trained(kind: str, folder: Path) -> None:
    """Broken if a class that breaks the contract shows a traceback, or is trained and called ok."""
    part, code, says = EARLY[kind]
    write(folder, "own_early", part, code)
    with nothing_lost(folder):
        done = dbbench("run", "own.yaml", "--device", "cpu", "--out", "out")
    assert done.exit_code == 2, (done.output, done.exception)
    (line,) = done.stderr.splitlines()
    assert line.startswith("dbbench: own.yaml: ")
    assert says in line


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["run own.yaml --device cpu --no-timing --out out", "estimate own.yaml --out out"])
@pytest.mark.parametrize("kind", LATE)
def test_a_mistake_that_work_shows_is_a_failed_cell_with_its_cause(kind: str, verb: str, folder: Path) -> None:
    """Broken if the row of a cell that failed hides what went wrong in whose code."""
    part, code, says = LATE[kind]
    write(folder, "own_late", part, code)
    with nothing_lost(folder, may_add=("out",)):
        done = dbbench(*verb.split())
    if kind.startswith("plan") and verb.startswith("estimate"):
        assert done.exit_code in (0, 1)  # a rehearsal visits every block, whatever is planned
        return
    assert done.exit_code == 1, (done.output, done.exception)
    (record,) = (folder / "out" / "records").glob("*.json")
    row = json.loads(record.read_text())["row"]
    assert row["status"] == "failed"
    assert says in row["error"]
