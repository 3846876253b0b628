"""The memory of one training step of transformers' Trainer.

    from dbbench.integrations.transformers import MemoryCallback
    trainer = Trainer(..., callbacks=[MemoryCallback(step=3)])

A step is an update of the weights, with all the batches that are accumulated for it. Where the backward or the
optimizer raises, Trainer calls no callback: the ledger stays open until the next ``train``, or `MemoryCallback.drop`.
"""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from dbbench.integrations.one_step import OneStep


class MemoryCallback(OneStep, TrainerCallback):
    """Prints the table of update number ``step``, counted from 1, and keeps it; the options are `OneStep`'s."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close what an earlier training that failed left open."""
        self.drop()

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the ledger before the step."""
        if state.global_step == self.step - 1:
            self.begin(kwargs["model"], kwargs["optimizer"])

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Close the ledger, and on the main process print its table."""
        self.end(speak=state.is_world_process_zero)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Say so where training was over before the step came."""
        self.drop()
        if self.ledger is None and state.is_world_process_zero:
            self._tell(f"dbbench: training ended after {state.global_step} steps, before step {self.step}: no table")
