"""Which module an op belongs to, forward and backward, without a hook on any one module.

Forward: global module hooks keep a stack of paths. Backward: every autograd node carries the number it got in the
forward, so noting at which numbers the stack changed is enough to find the module whose forward made the node.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from threading import get_ident
from typing import Any
from weakref import WeakSet

from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from dbbench.errors import BadInput
from dbbench.measure import private


def compiled(name: str, module: nn.Module) -> BadInput:
    """Return the error for a compiled module: what runs is not its ops, so no byte could be given to one."""
    what = f"module '{name}'" if name else f"the model ({type(getattr(module, '_orig_mod', module)).__name__})"
    return BadInput(
        f"{what} is compiled by torch.compile, whose kernels the ledger cannot see into; give the plain one"
    )


#: Under this key a node made on another thread carries its module's path: each thread numbers its nodes from 0.
_PATH = "dbbench.module"


class ModulePaths:
    """The path of the module that is running in one thread, '' outside all of them.

    ``of_thread`` gives the paths of the thread that runs now, None for one that is not followed.
    """

    def __init__(self, of_thread: Callable[[], ModulePaths | None], main: ModulePaths | None = None) -> None:
        self._of_thread = of_thread
        self._names: dict[int, str] = main._names if main is not None else {}
        self._known: list[nn.Module] = main._known if main is not None else []
        self._strangers: WeakSet[nn.Module] = main._strangers if main is not None else WeakSet()
        self._main = main
        self.stranger_ran = False
        self._several_threads = False
        self._stack: list[str] = []
        self._numbers: list[int] = [0]
        self._paths: list[str] = [""]
        self._handles: list[Any] = []

    def for_thread(self) -> ModulePaths:
        """Return the paths of another thread, which begins in the module that runs in this one."""
        self._several_threads = True
        other = ModulePaths(self._of_thread, self)
        if self.current():
            other._stack.append(self.current())
        return other

    def name(
        self,
        root: nn.Module,
        prefix: str = "",
        modules: Iterable[tuple[str, nn.Module]] | None = None,
        keep: bool = True,
    ) -> None:
        """Learn the paths of ``root``'s ``modules``, begun with ``prefix``; a shared module keeps its first.

        One that is not kept alive may be where another was that is gone, whose name it does not inherit.
        """
        if keep:
            self._known.append(root)
        for path, module in root.named_modules() if modules is None else modules:
            full = f"{prefix}.{path}" if prefix and path else prefix or path
            self._names[id(module)] = self._names.get(id(module), full) if keep else full

    def open(self) -> None:
        """Start following calls."""

        thread = get_ident()

        def enter(module: nn.Module, args: Any) -> None:
            paths = self if get_ident() == thread else self._of_thread()
            if paths is not None:
                paths._enter(module)

        def leave(module: nn.Module, args: Any, output: Any) -> None:
            paths = self if get_ident() == thread else self._of_thread()
            if paths is not None:
                paths._leave()

        self._handles = [
            register_module_forward_pre_hook(enter),
            register_module_forward_hook(leave, always_call=True),
        ]

    def close(self) -> None:
        """Stop following calls."""
        for handle in self._handles:
            handle.remove()
        self._stack.clear()
        self._known.clear()

    def current(self) -> str:
        """Return the path of the innermost module whose forward is running."""
        return self._stack[-1] if self._stack else ""

    def mark(self, node: Any, path: str) -> None:
        """Leave on a ``node`` made in a thread of its own the path of its module: its number tells in that thread only.

        The main thread's nodes are left as they are.
        """
        if self._main is not None:
            node.metadata[_PATH] = path

    def of_node(self, node: Any) -> str:
        """Return the path of the module whose forward made the autograd ``node``."""
        main = self._main or self
        if main._several_threads:
            marked = node.metadata.get(_PATH)
            if marked is not None:
                return str(marked)
        number = private.node_sequence_number(node)
        return main._paths[bisect_right(main._numbers, number) - 1]

    def _note(self) -> None:
        number = private.next_sequence_number()
        if number < self._numbers[-1]:
            return  # on CUDA, a worker of autograd's that runs a checkpoint's forward again has a counter of its own
        if number == self._numbers[-1]:
            self._paths[-1] = self.current()
        else:
            self._numbers.append(number)
            self._paths.append(self.current())

    def _enter(self, module: nn.Module) -> None:
        path = self._names.get(id(module))
        if path is None:
            if private.is_compiled(module):
                raise compiled(type(module).__name__, module)
            outer = self.current()
            path = f"{outer}.{type(module).__name__}" if outer else type(module).__name__
            if private.table(module, "_parameters") and module not in self._strangers:
                self._strangers.add(module)
                (self._main or self).stranger_ran = True
        self._stack.append(path or self.current())
        self._note()

    def _leave(self) -> None:
        if self._stack:
            self._stack.pop()
        self._note()
