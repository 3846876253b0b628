"""One step of somebody else's training loop under a ledger: opened at its beginning, told at its end."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from dbbench.errors import BadInput
from dbbench.measure.optimizers import tensors_in
from dbbench.profile.ledger import Ledger
from dbbench.profile.table import MemoryTable


class OneStep:
    """The ledger of the training step number ``step``, counted from 1; ``tell`` gets its table as text.

    What the model is called with counts as inputs. With ``save`` the profile is written to that folder, for
    ``dbbench diff``. ``ledger`` and ``table`` are None until the step is over. Raises BadInput for a step below 1.
    """

    def __init__(
        self, step: int = 2, *, rows: int = 20, save: Path | str | None = None, tell: Callable[[str], None] = print
    ) -> None:
        if not isinstance(step, int) or isinstance(step, bool) or step < 1:
            raise BadInput(f"step {step!r}: steps are counted from 1")
        self.step = step
        self.ledger: Ledger | None = None
        self.table: MemoryTable | None = None
        self._rows, self._save, self._tell = rows, Path(save).absolute() if save is not None else None, tell
        self._open: Ledger | None = None
        self._hooks: list[Any] = []

    @property
    def is_open(self) -> bool:
        """Whether the step is running."""
        return self._open is not None

    def begin(self, model: nn.Module, optimizer: Any, inputs: Any = None) -> None:
        """Open the ledger, in the thread that trains."""
        self._let_go()
        ledger = Ledger(model, optimizer, inputs=inputs)

        def called(module: nn.Module, args: Any, kwargs: Any) -> None:
            if self._open is ledger and list(tensors_in((args, kwargs))):
                ledger.declare("inputs", "inputs", (args, kwargs))

        def returned(module: nn.Module, args: Any, output: Any) -> None:
            error = sys.exc_info()[1]
            if output is None and error is not None and self._open is ledger:
                self.end(error)

        # a ledger that outlives its step would count all that comes: a forward that fails ends it as well
        self._hooks = [
            model.register_forward_pre_hook(called, with_kwargs=True),
            model.register_forward_hook(returned, always_call=True),
        ]
        ledger.__enter__()
        self._open = ledger

    def end(self, error: BaseException | None = None, speak: bool = True) -> None:
        """Close the ledger, keep it as `ledger`, save the profile, and with ``speak`` tell the table.

        A step that failed is told until where it came.
        """
        ledger, self._open = self._open, None
        if ledger is None:
            return
        ledger.__exit__(type(error) if error is not None else None, error, None)
        if error is None:
            self._let_go()  # a hook that runs does not remove itself
        self.ledger, self.table = ledger, ledger.table(self._rows)
        if speak:
            self._tell(f"dbbench: memory of training step {self.step}\n{self.table}")
            if self._save is not None:
                ledger.save(self._save)

    def drop(self) -> None:
        """Close a ledger that is still open, and tell nothing: its training ended in the middle of a step."""
        ledger, self._open = self._open, None
        if ledger is not None:
            ledger.__exit__(None, None, None)
        self._let_go()

    def _let_go(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
