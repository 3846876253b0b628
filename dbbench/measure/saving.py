"""What autograd keeps for a backward, and why: read off its graph, which is left as it is.

After an op the node that autograd made for it hangs on its result; what the node keeps is asked at the next op, before
anything else can happen. No saved-tensor hook of ours is in force, so functional transforms, in-place checks and the
lives of tensors are those of the untraced step. Hooks of the traced code are followed: a non-reentrant checkpoint
is a pair of them, and what they put in a tensor's place is kept too.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from dbbench.measure import private

if TYPE_CHECKING:
    from dbbench.measure.recorder import Op, Recorder

_BY_HOOK = "kept by a saved-tensor hook"
_BY_CHECKPOINT = "recomputed for a checkpoint"
#: Autograd functions in which torch's checkpoints keep their inputs.
_CHECKPOINTS = ("_NoopSaveInputsBackward", "CheckpointFunctionBackward")
#: Changed in place, a view hides its node behind another; of these ops it is known that they keep their result.
_KEEP_THEIR_RESULT = frozenset(
    "relu_ sigmoid_ tanh_ exp_ sqrt_ rsqrt_ reciprocal_ leaky_relu_ elu_ hardsigmoid_".split()
)


class SavedTensors:
    """Notes in ``trace.saved`` why each storage is kept."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._outputs: list[weakref.ref[Tensor]] | None = None
        self._op: Op
        self._module = ""
        self._numbers: list[int] = []
        self._python_number: int | None = None
        self._visited: weakref.WeakSet[Any] = weakref.WeakSet()  # of nodes written in Python
        #: Ops of a wrapper subclass have run: their nodes hang on results that no dispatch mode is shown.
        self.unseen_nodes = False

    def expect(self, op: Op, outputs: list[weakref.ref[Tensor]], numbers: list[int], python_number: int | None) -> None:
        """Remember the op that has just run: ``numbers`` are its results' storages, `look` will ask what was kept.

        ``python_number`` is the storage of a Python number among its arguments, which goes with the call unless kept.
        """
        self._op, self._outputs, self._numbers = op, outputs, numbers
        self._module = self._recorder.modules.current()
        self._python_number = python_number

    def look(self) -> None:
        """Ask what the last op's node keeps."""
        outputs, self._outputs = self._outputs, None
        if outputs is None:
            return
        node = _node_of(outputs)
        if node is not None:
            self._recorder.modules.mark(node, self._module)
            self._visit(node)
        if self._python_number is not None:
            kept = private.kept_number(node) if node is not None else None
            self._recorder.settle_number(self._python_number, kept)

    def look_at_custom(self, node: Any) -> None:
        """Ask what an ``autograd.Function`` written in Python keeps; it is met when something consumes its result."""
        if node in self._visited:
            return
        self._visited.add(node)
        name = type(node).__name__
        what = "a checkpoint" if name in _CHECKPOINTS else name.removesuffix("Backward")
        label = f"input of {what}{_within(self._recorder.modules.of_node(node))}"
        for kept in private.saved_by(node):
            self._note(kept, label)

    def walk(self, root: Any) -> None:
        """Ask every node from which a backward begins or will come to."""
        self.unseen_nodes = False
        for node in private.nodes_behind(root, set()):
            label = f"input of {node.name().removesuffix('0').removesuffix('Backward')}"
            for kept in private.saved_by(node):
                self._note(kept, label + _within(self._recorder.modules.of_node(node)))

    def _visit(self, node: Any) -> None:
        if private.is_custom_function(node):
            self.look_at_custom(node)
        else:
            for kept in private.saved_by(node):
                self._note(kept)
            if self._op.packet in _KEEP_THEIR_RESULT and node.name() == "CopySlices":
                self._note_number(self._numbers[0])
        for following, _ in node.next_functions:
            if private.keeps_out_of_sight(following):
                if private.is_custom_function(following):
                    self.look_at_custom(following)
                elif private.is_scripted_graph(following):
                    self._recorder._book.scripted = True

    def _note(self, kept: Any, label: str | None = None) -> None:
        if isinstance(kept, Tensor):
            numbers = self._recorder.known_numbers(kept)
            for number in numbers:
                self._note_number(number, label)
            if not numbers:
                self._recorder.note_unknown(kept)
        elif isinstance(kept, (tuple, list)):
            for item in kept:
                self._note(item, label)

    def _note_number(self, number: int, label: str | None = None) -> None:
        saved = self._recorder.trace.saved
        known = saved.get(number)
        if known is None or (known in (_BY_HOOK, _BY_CHECKPOINT) and label not in (_BY_HOOK, _BY_CHECKPOINT)):
            saved[number] = label or self._reason(number)

    def _reason(self, number: int) -> str:
        side = "output" if number in self._numbers else "input"
        return f"{side} of {self._op.packet}{_within(self._module)}"

    def follow_hooks(self) -> None:
        """See what other hooks keep in place of a tensor, and when a checkpoint runs its forward again."""
        enter, leave, mark = saved_tensors_hooks.__enter__, saved_tensors_hooks.__exit__, self._recorder.mark

        def entering(hooks: Any) -> None:
            original = hooks.pack_hook

            def pack(tensor: Tensor) -> Any:
                if recomputing:
                    self._note(tensor, _BY_CHECKPOINT)
                kept = original(tensor)
                self._note(kept, _BY_HOOK)
                return kept

            recomputing = private.is_recomputation(hooks)
            if recomputing:
                mark("recompute")
            hooks.pack_hook = pack
            try:
                enter(hooks)
            finally:
                hooks.pack_hook = original

        def leaving(hooks: Any, *details: Any) -> None:
            leave(hooks, *details)
            if private.is_recomputation(hooks):
                mark(None)

        self._recorder.patch(saved_tensors_hooks, "__enter__", entering)
        self._recorder.patch(saved_tensors_hooks, "__exit__", leaving)


def _node_of(outputs: list[weakref.ref[Tensor]]) -> Any:
    """Return the node behind the first result that has one."""
    for reference in outputs:
        tensor = reference()
        node = private.node_of(tensor) if tensor is not None else None
        if node is not None:
            return node
    return None


def _within(module: str) -> str:
    return f" in {module}" if module else ""
