"""The memory of one training step of a loop that Accelerate prepared.

    from dbbench.integrations.accelerate import watch_step
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    watch_step(accelerator, step=3)

A step goes from the first forward of the model after one update of the weights to the end of the next update, with all
the batches that are accumulated for it.
"""

from __future__ import annotations

from typing import Any

from accelerate import Accelerator
from torch import nn

from dbbench.errors import BadInput
from dbbench.integrations.one_step import OneStep


class _UpdateToUpdate(OneStep):
    """Counts the updates of one optimizer."""

    def follow(self, accelerator: Accelerator, model: nn.Module, optimizers: list[Any]) -> None:
        """Wait for the step."""
        self._accelerator, self._updates = accelerator, 0
        innermost = getattr(optimizers[0], "optimizer", optimizers[0])
        self._steady = [
            model.register_forward_pre_hook(
                lambda module, args, kwargs: self._forward(module, optimizers, (args, kwargs)), with_kwargs=True
            ),
            innermost.register_step_post_hook(lambda *_: self._updated()),
        ]

    def _forward(self, model: nn.Module, optimizers: list[Any], inputs: Any) -> None:
        if self._updates == self.step - 1 and not self.is_open and model.training:
            self.begin(model, optimizers, inputs)

    def _updated(self) -> None:
        self._updates += 1
        if self.is_open:
            self.end(speak=self._accelerator.is_main_process)
            for hook in self._steady:
                hook.remove()


def watch_step(accelerator: Accelerator, step: int = 2, **options: Any) -> OneStep:
    """Print the table of update number ``step``, counted from 1 from now on; the options are `OneStep`'s.

    Returns what keeps the ledger and the table. Raises BadInput before anything was prepared.
    """
    models, optimizers = accelerator._models, accelerator._optimizers
    if not models or not optimizers:
        raise BadInput("watch_step: the accelerator has prepared no model or no optimizer; call it after prepare()")
    watched = _UpdateToUpdate(step, **options)
    watched.follow(accelerator, models[0], list(optimizers))
    return watched
