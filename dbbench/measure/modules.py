"""Which module an op belongs to, forward and backward, without a hook on any one module.

Forward: global module hooks keep a stack of paths. Backward: every autograd node carries the number it got in the
forward, so noting at which numbers the stack changed is enough to find the module whose forward made the node.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

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


class ModulePaths:
    """The path of the module that is running, '' outside all of them."""

    def __init__(self) -> None:
        self._names: dict[int, str] = {}
        self._known: list[nn.Module] = []
        self._stack: list[str] = []
        self._numbers: list[int] = [0]
        self._paths: list[str] = [""]
        self._handles: list[Any] = []

    def name(self, root: nn.Module, prefix: str = "", keep: bool = True) -> None:
        """Learn the paths of ``root``'s modules, begun with ``prefix``; a shared module keeps its first.

        One that is not kept alive may be where another was that is gone, whose name it does not inherit.
        """
        if keep:
            self._known.append(root)
        for path, module in root.named_modules():
            full = f"{prefix}.{path}" if prefix and path else prefix or path
            self._names[id(module)] = self._names.get(id(module), full) if keep else full

    def open(self) -> None:
        """Start following calls."""
        self._handles = [
            register_module_forward_pre_hook(self._enter),
            register_module_forward_hook(self._leave, always_call=True),
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

    def of_node(self, node: Any) -> str:
        """Return the path of the module whose forward made the autograd ``node``."""
        number = private.node_sequence_number(node)
        return self._paths[bisect_right(self._numbers, number) - 1]

    def _note(self) -> None:
        number = private.next_sequence_number()
        if number < self._numbers[-1]:
            return  # another thread's counter: attribution of its nodes stays with what was noted
        if number == self._numbers[-1]:
            self._paths[-1] = self.current()
        else:
            self._numbers.append(number)
            self._paths.append(self.current())

    def _enter(self, module: nn.Module, args: Any) -> None:
        path = self._names.get(id(module))
        if path is None:
            if private.is_compiled(module):
                raise compiled(type(module).__name__, module)
            outer = self.current()
            path = f"{outer}.{type(module).__name__}" if outer else type(module).__name__
        self._stack.append(path or self.current())
        self._note()

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._stack:
            self._stack.pop()
        self._note()
