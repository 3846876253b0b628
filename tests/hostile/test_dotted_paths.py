"""Whatever a suite names in the place of a class of the user's own is one line, status 2, and no traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from hostile.folders import nothing_lost
from hostile.strangers import dbbench

from dbbench import plugins

SUITE = {"methods": "method", "tasks": "task", "networks": "network"}
TEXT = """\
suite: mine
task: {{name: {tasks}}}
network: {{name: {networks}, size: tiny, depth: 2, patch: 4}}
budget: {{kind: samples, value: 64}}
batch_size: 32
seeds: [0]
methods:
  mine: {{method: {methods}}}
"""
MODULE = """
import abc, collections, os
from dbbench.methods.backprop import Backprop
from dbbench.methods.base import Method
from dbbench.networks.base import Network
from dbbench.networks.vit import ViT
from dbbench.tasks.base import Task
from dbbench.tasks.image_classification import Digits

def function(): pass
instance = object()
mapping = {"a": 1}
number = 3
nothing = None
text = "dbbench.methods.backprop:Backprop"
lambda_ = lambda *a, **k: None

class Plain: pass
class Meta(type): pass
class OfMeta(metaclass=Meta): pass
class AbstractMethod(Method): pass
class AbstractTask(Task): pass
class AbstractNetwork(Network): pass
class Method3(Backprop): Options = 3
class Task3(Digits): Options = {"classes": 10}
class Network3(ViT): Options = None
class MethodPlain(Backprop): Options = Plain
class TaskPlain(Digits): Options = Plain
class NetworkPlain(ViT): Options = Plain
"""
#: Modules that are no use: name, content, what the line must say.
BROKEN = {
    "syntax": ("class M(:\n", "SyntaxError"),
    "indent": ("def f():\npass\n", "IndentationError"),
    "nul": ("x = 1\0\n", "fails with"),
    "latin": ("x = '\\xe9'\ns = 'é'\n", "fails with"),
    "raises": ("raise KeyError('lost')\n", "KeyError: 'lost'"),
    "attribute": ("import os\nos.no_such_thing\n", "AttributeError: module 'os' has no attribute 'no_such_thing'"),
    "imports": ("import no_such_module_anywhere\n", "no_such_module_anywhere"),
    "imports_from": ("from os import no_such_name\n", "ImportError"),
    "recursion": ("def f(): f()\nf()\n", "RecursionError"),
    "circle": ("import dotted_circle.no\n", "fails with"),
    "exits": ("import sys\nsys.exit(0)\n", "SystemExit: 0"),
    "leaves": ("import os\nos._exit(0)\n", "os._exit(0) was called"),
    "interrupts": ("raise KeyboardInterrupt\n", "KeyboardInterrupt"),
    "getattr": ("def __getattr__(name): raise OSError('not today')\n", "OSError: not today"),
}
#: Not a path at all.
SHAPES = [
    ":M",
    ".x:M",
    "x:",
    "x:.M",
    "x:M:N",
    "x y:M",
    "..:M",
    "os.path:",
    "1x:M",
    "x:M()",
    "a" * 300 + ":M",
    "é:é",
    "x/y:M",
]
WRONG = [
    "os:getcwd",
    "os:environ",
    "os:path",
    "collections:OrderedDict",
    "os:no_such",
    "no_such_module:M",
    "os.no_such:M",
]
INSIDE = [
    "function",
    "instance",
    "mapping",
    "number",
    "nothing",
    "text",
    "lambda_",
    "Plain",
    "OfMeta",
    "number.real",
    "Nope",
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dotted.py").write_text(MODULE)
    for name, (content, _) in BROKEN.items():
        raw = content.encode("latin-1" if name == "latin" else "utf-8")
        (tmp_path / f"dotted_{name}.py").write_bytes(raw)
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0].startswith("dotted")]:
        del sys.modules[name]


def line_for(folder: Path, group: str, path: str, verb: Callable[[str], list[str]]) -> str:
    """Name ``path`` in the suite, ask ``verb`` for it, and return the one line that it ends with."""
    names = {"methods": "backprop", "tasks": "digits", "networks": "vit"} | {group: f"'{path}'"}
    (folder / "mine.yaml").write_text(TEXT.format(**names))
    with nothing_lost(folder):
        done = dbbench(*verb("mine.yaml"))
    assert done.exit_code == 2, (done.output, done.exception)
    assert not done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith("dbbench: mine.yaml: ")
    assert ("methods.mine.method" if group == "methods" else f"{SUITE[group]}.name") in line
    assert len(line) < 900
    return line


def run(suite: str) -> list[str]:
    return ["run", suite, "--device", "cpu", "--out", "out"]


def check(suite: str) -> list[str]:
    return ["check", "--fake", suite, "--baseline", "none"]


@pytest.mark.slow
@pytest.mark.parametrize("group", SUITE)
@pytest.mark.parametrize("path", [*SHAPES, *WRONG, *(f"dotted:{name}" for name in INSIDE)])
def test_what_is_no_class_of_the_kind_is_one_line(group: str, path: str, folder: Path) -> None:
    """Broken if a function, a dict, an instance or a class of another kind ends in a traceback of the harness."""
    for verb in (run, check):
        line_for(folder, group, path, verb)


@pytest.mark.parametrize("group", SUITE)
@pytest.mark.parametrize("name", BROKEN)
def test_a_module_that_cannot_be_imported_says_why(group: str, name: str, folder: Path) -> None:
    """Broken if the cause is hidden, or an error inside the module reads as if the class were missing."""
    line = line_for(folder, group, f"dotted_{name}:M", run)
    assert BROKEN[name][1] in line
    assert "has no 'M'" not in line
    if name not in ("nul", "latin"):
        assert f"dotted_{name}.py:" in line


@pytest.mark.parametrize("group", SUITE)
@pytest.mark.parametrize("kind", ["Abstract", "3", "Plain"])
def test_an_abstract_class_and_options_that_are_none_say_what_is_missing(group: str, kind: str, folder: Path) -> None:
    """Broken if a class that leaves out a method, or has a number for its options, is found out in a traceback."""
    word = SUITE[group].title()
    line = line_for(folder, group, f"dotted:{kind}{word}" if kind == "Abstract" else f"dotted:{word}{kind}", run)
    assert ("abstract: it does not define" if kind == "Abstract" else "Options") in line


@pytest.mark.parametrize("group", SUITE)
@pytest.mark.parametrize("path", ["dotted:function", "dotted_raises:M", "dotted_exits:M", "no_such_module:M", ":M"])
def test_an_entry_point_is_held_to_the_same(
    group: str, path: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken if what an installed package offers is trusted more than what a suite names."""
    offered = [EntryPoint("theirs", path, f"dbbench.{group}")]
    monkeypatch.setattr(plugins, "entry_points", lambda group: [e for e in offered if e.group == group])
    line_for(folder, group, "theirs", run)
    listed = dbbench("list")
    assert listed.exit_code == 0, listed.output
    assert "theirs" in listed.stdout
