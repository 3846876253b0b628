"""Who in Python holds a storage: a search through the variables of the running functions, then those of modules.

What a name leads to is followed through containers, attributes, closures, hooks and tracebacks; then the autograd
graphs of the tensors met on the way. It looks only when some storage wants a name, so an ordinary step pays for its
logits and loss.
"""

from __future__ import annotations

import inspect
import sys
import sysconfig
import types
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain, groupby, islice
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dbbench.measure import private

NOBODY = "(no name in Python)"
_SHALLOW, _DEEP = 2, 7
_MOST_OBJECTS = 20_000  # of one function or module
_MOST_OF_MODULES = 100_000  # of all modules together
_LEAST_BYTES = 1024
#: Functions and objects that hold tensors only because they measure.
_OURS = ("dbbench.measure.", "dbbench.profile.", "dbbench.phases", "dbbench.pytest_plugin.")
_LEAVES = (str, bytes, int, float, complex, type(None), type, types.ModuleType, torch.dtype, torch.device, FrameType)
_PLAIN = frozenset((str, int, float, bool, type(None)))
#: Attributes of every optimizer that lead to parameters or to what is looked at elsewhere.
_OF_OPTIMIZER = ("state", "param_groups", "defaults")
#: Tables of a module that lead to code of others.
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
#: Where code that is not the user's is installed; its modules' variables are not searched.
_INSTALLED = tuple({sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")})


class Variable(NamedTuple):
    """``kind`` is local or global, ``place`` the function or module."""

    kind: str
    place: str
    name: str
    value: Any


def find_holders(
    wanted: dict[int, tuple[int, int]], frame: FrameType | None, given: Iterable[Variable] = ()
) -> dict[int, str]:
    """Return ``{number: name}`` for those of ``wanted`` that a variable leads to.

    ``wanted`` maps a storage's address to its (number, bytes), ``frame`` is the innermost one to look at. First come
    those ``given``, the variables of everybody's functions and what is in them, then torch's own, then all that those
    lead to, at last those of modules; the last two, which may visit a whole program's objects, only for a storage of
    `_LEAST_BYTES`.
    """
    mine, torchs = _frames(frame)
    search = _Search({address: number for address, (number, _) in wanted.items()})
    variables = [*given, *_variables(mine)]
    search.look_at(variables, _SHALLOW)
    search.follow_graphs()
    search.look_at(_variables(torchs), _SHALLOW)
    if max((wanted[address][1] for address in search.wanted), default=0) >= _LEAST_BYTES:
        search.start_again()
        search.look_at(variables, _DEEP)
        search.look_at(_globals(mine), _DEEP)
        search.follow_graphs()
    return search.found


def variables_from(frame: FrameType | None) -> tuple[list[Variable], Iterator[Variable]]:
    """Return the variables of everybody's functions outward from ``frame``, and those of modules."""
    mine, _ = _frames(frame)
    return _variables(mine), _globals(mine)


def is_ours(value: Any) -> bool:
    """Tell whether ``value`` leads to no tensor, or only to those of a measurement."""
    kind = type(value)  # ``isinstance`` asks a proxy, which may run code of others, or raise
    return issubclass(kind, _LEAVES) or kind.__module__.startswith(_OURS)


def _variables(frames: list[FrameType]) -> list[Variable]:
    """Return the variables of functions, inner ones first; what one was given goes by its outermost caller's name."""
    found = []
    for frame in frames:
        where = frame.f_code.co_qualname
        kind, place = ("global", frame.f_globals.get("__name__", "?")) if where == "<module>" else ("local", where)
        found.append([Variable(kind, place, name, value) for name, value in locals_of(frame)])
    outermost: dict[int, Variable] = {}
    for variable in chain.from_iterable(reversed(found)):
        outermost.setdefault(id(variable.value), variable)
    return [outermost[id(variable.value)] for variable in chain.from_iterable(found)]


def _globals(frames: list[FrameType]) -> Iterator[Variable]:
    """Yield the variables of the modules whose functions run, then of all others that nobody installed."""
    tables = {frame.f_globals.get("__name__", "?"): frame.f_globals for frame in frames}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and not file.startswith(_INSTALLED) and not f"{name}.".startswith(_OURS):
            tables.setdefault(name, vars(module))
    for name, table in tables.items():
        yield from (Variable("global", name, key, value) for key, value in list(table.items()))


def _frames(frame: FrameType | None) -> tuple[list[FrameType], list[FrameType]]:
    """Return the frames outward from ``frame``: those of everybody's functions, and those of torch's; ours in none."""
    mine: list[FrameType] = []
    torchs: list[FrameType] = []
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.startswith("torch._"):
            pass  # its own machinery, whose variables tell nobody anything
        elif module.startswith("torch."):
            torchs.append(frame)
        elif not module.startswith(_OURS):
            mine.append(frame)
        frame = frame.f_back
    return mine, torchs


class _Search:
    def __init__(self, wanted: dict[int, int]) -> None:
        self.wanted = wanted
        self.found: dict[int, str] = {}
        self._graphs: list[tuple[str, Any]] = []
        self._seen: set[int] = set()

    def start_again(self) -> None:
        """Forget what was visited."""
        self._seen.clear()

    def look_at(self, variables: Iterable[Variable], most: int) -> None:
        """Follow ``variables`` to the depth ``most``, all of one function or module before the next."""
        of_modules = _MOST_OF_MODULES
        for (kind, place), ours in groupby(variables, key=lambda variable: (variable.kind, variable.place)):
            queue = deque((one.name, one.value, 0) for one in ours)
            if kind == "global":
                of_modules -= self._follow(kind, place, queue, most, min(_MOST_OBJECTS, of_modules))
            else:
                self._follow(kind, place, queue, most, _MOST_OBJECTS)

    def _follow(self, kind: str, place: str, queue: deque[tuple[str, Any, int]], most: int, most_objects: int) -> int:
        """Follow what is in ``queue``; return how many objects were looked at, at most ``most_objects``."""
        left = most_objects
        while queue and self.wanted and left > 0:
            path, value, depth = queue.popleft()
            left -= 1
            if id(value) in self._seen or is_ours(value):
                continue
            self._seen.add(id(value))
            if isinstance(value, Tensor):
                self._meet(f"{kind} '{path}' in {place}", value)
            elif depth < most and (most > _SHALLOW or not isinstance(value, torch.nn.Module)):
                room = max(0, left - len(queue))  # a long list of numbers is not to take seconds
                queue.extend((name, inner, depth + 1) for name, inner in islice(parts_of(path, value), room))
        return most_objects - left

    def _meet(self, name: str, tensor: Tensor) -> None:
        for storage, _ in private.storages(tensor):
            self._name(storage._cdata, name)
        node = private.node_of(tensor)
        if node is not None:
            self._graphs.append((f"graph of {name}", node))
        if tensor.is_leaf and tensor.grad is not None:
            self._meet(name.replace("' in ", ".grad' in ", 1), tensor.grad)

    def _name(self, address: int, name: str) -> None:
        number = self.wanted.pop(address, None)
        if number is not None:
            self.found[number] = name

    def follow_graphs(self) -> None:
        """Look at what the nodes behind the tensors that were met keep."""
        seen: set[Any] = set()
        for name, root in self._graphs:
            for node in private.nodes_behind(root, seen):
                if not self.wanted:
                    return
                for kept in private.saved_by(node):
                    self._keep(kept, name)
                if private.is_custom_function(node):
                    for key, value in node.__dict__.items():
                        self._keep(value, f"ctx.{key} of {type(node).__name__.removesuffix('Backward')} in the {name}")
        self._graphs.clear()

    def _keep(self, kept: Any, name: str) -> None:
        for item in kept if isinstance(kept, (tuple, list)) else (kept,):
            if isinstance(item, Tensor):
                for storage, _ in private.storages(item):
                    self._name(storage._cdata, name)


def parts_of(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield (name, object) of what ``value`` holds; code of others, which might make it up when asked, does not run."""
    kind = type(value)
    if issubclass(kind, dict):
        # a model's output is a dict whose keys are its attributes too
        attribute = kind is not dict
        for key, inner in list(dict.items(value)):
            named = attribute and isinstance(key, str) and key.isidentifier()
            yield (f"{path}.{key}" if named else f"{path}[{_spelled(key)}]"), inner
    elif issubclass(kind, (list, tuple, deque)):
        for i, inner in enumerate(_items(value, list, tuple, deque)):
            yield f"{path}[{i}]", inner
    elif issubclass(kind, (set, frozenset)):
        for inner in _items(value, set, frozenset):
            yield f"{path}{{…}}", inner
    elif kind is types.MethodType:
        yield f"{path}.__self__", value.__self__
    elif kind is types.FunctionType:
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            try:
                yield f"{path}.<{name}>", cell.cell_contents
            except ValueError:  # not filled yet
                continue
    elif issubclass(kind, torch.nn.Module):
        yield from _parts_of_module(path, value)
    elif issubclass(kind, torch.optim.Optimizer):
        yield f"{path}.state", dict(value.state)
        yield from ((f"{path}.{key}", inner) for key, inner in _attributes(value) if key not in _OF_OPTIMIZER)
    elif issubclass(kind, BaseException):
        yield from _parts_of_exception(path, value)
    else:
        yield from ((f"{path}.{key}", inner) for key, inner in _attributes(value))


def _items(value: Any, *kinds: Any) -> list[Any]:
    """Return what the first of ``kinds`` that ``value`` is has in it, whatever its own class makes of that."""
    kind = next(kind for kind in kinds if issubclass(type(value), kind))
    return list(kind.__iter__(value))


def _attributes(value: Any) -> list[tuple[str, Any]]:
    try:
        attributes = object.__getattribute__(value, "__dict__")
    except Exception:  # it has none, or a property of that name
        return []
    return list(dict.items(attributes)) if isinstance(attributes, dict) else []


def _spelled(key: Any) -> str:
    """Spell a key of a dict; what is no plain value is named by its class, for its text may be long, or an op."""
    return f"{key!s:.40}" if isinstance(key, (str, int, float, tuple, type(None))) else f"a {type(key).__name__}"


def _parts_of_module(path: str, module: torch.nn.Module) -> Iterator[tuple[str, Any]]:
    for key, inner in list(vars(module).items()):
        if key in ("_parameters", "_buffers", "_modules"):
            yield from ((f"{path}.{name}", part) for name, part in list(inner.items()))
        elif key in _HOOKS:
            yield from ((f"hook of {path}", hook) for hook in list(inner.values()))
        elif not key.startswith("_") or key == "__wrapped__":
            yield f"{path}.{key}", inner


def beside_its_parts(module: torch.nn.Module) -> Iterator[Any]:
    """Yield what hangs on ``module`` and is no parameter, buffer or part of it: its hooks, and what it keeps."""
    for key, inner in vars(module).items():
        if type(inner) in _PLAIN or key in ("_parameters", "_buffers", "_modules"):
            continue
        if key in _HOOKS:
            yield from inner.values()
        elif not key.startswith("_"):
            yield inner


def _parts_of_exception(path: str, error: BaseException) -> Iterator[tuple[str, Any]]:
    """Yield the variables of the functions that an exception ended: its traceback keeps them."""
    step = error.__traceback__
    while step is not None:
        frame, step = step.tb_frame, step.tb_next
        if not frame.f_globals.get("__name__", "").startswith(_OURS):
            where = f"{path}.__traceback__.{frame.f_code.co_name}"
            yield from ((f"{where}.{name}", value) for name, value in locals_of(frame))
    yield f"{path}.__context__", error.__context__
    yield from ((f"{path}.{key}", value) for key, value in list(vars(error).items()))


def locals_of(frame: FrameType) -> list[tuple[str, Any]]:
    """Return a function's variables without leaving it a copy: before Python 3.13 a frame keeps the one it is asked
    for, and with it every tensor that the function lets go of afterwards."""
    found = frame.f_locals
    items = list(found.items())
    if sys.version_info < (3, 13) and frame.f_code.co_flags & inspect.CO_OPTIMIZED:
        found.clear()
    return items
