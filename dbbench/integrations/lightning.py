"""The memory of one training step of Lightning's Trainer.

    from dbbench.integrations.lightning import MemoryCallback
    trainer = Trainer(..., callbacks=[MemoryCallback(step=3)])

A step is a batch. Works with ``lightning`` and with ``pytorch_lightning``, whichever is installed and imported.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from dbbench.integrations.one_step import OneStep

if TYPE_CHECKING:
    from lightning.pytorch import Callback
elif "pytorch_lightning" in sys.modules and "lightning.pytorch" not in sys.modules:
    from pytorch_lightning import Callback
else:
    try:
        from lightning.pytorch import Callback
    except ImportError:
        from pytorch_lightning import Callback


class MemoryCallback(OneStep, Callback):
    """Prints the table of batch number ``step``, counted from 1 over all epochs, and keeps it."""

    _batches = 0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Count from here."""
        self.drop()
        self._batches = 0

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Open the ledger before the step."""
        self._batches += 1
        if self._batches == self.step:
            self.begin(pl_module, trainer.optimizers or None, inputs=batch)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Close the ledger, and on the main process print its table."""
        self.end(speak=trainer.is_global_zero)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Tell a step that failed until where it came."""
        self.end(exception, speak=trainer.is_global_zero)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Say so where training was over before the step came."""
        self.drop()
        if self.ledger is None and trainer.is_global_zero:
            self._tell(f"dbbench: training ended after {self._batches} steps, before step {self.step}: no table")
