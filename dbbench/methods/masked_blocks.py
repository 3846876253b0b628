"""DiffusionBlocks on masked diffusion: each block of layers is the denoiser of its own part of the masking.

Shing, Koyama & Akiba, ICLR 2026 (arXiv 2506.14202 v4), their conversion of MD4 (Shi et al. 2024, arXiv 2406.04329,
eqs. 4 and 5; `dbbench.tasks.masked_text` has the bound). The noise here is the mask, and its level the time t, with
α_t = 1 − t the chance of a token to be seen. Blocks own equal decrements of α, which with this schedule are equal parts
of the time: with B blocks the borders are t_b = b/B, and the first layers own the most masked part, [1 − 1/B, 1].

A step draws one block b and trains it alone, at times t ~ U(t_lo, t_hi) of its part, on the integrand of the bound:

    loss_b = E[ 1/t · Σ_{i masked} −log p_b(x_i | what is not masked, t) ] / L

Since the parts are equal, the mean of loss_b over the blocks *is* the bound of the whole, ∫₀¹ = Σ_b ∫ over b's part:
that is why equal decrements and a block drawn uniformly go together. A prediction for a text at the time t is given by
the block that owns t; no chain runs through the blocks, as every block reads the tokens themselves. What the blocks
share is the embeddings of tokens and time, and the head.

``overlap`` widens a part by that fraction of its own length on either side, within [0, 1]. The paper's γ is defined on
σ; this reads it on the axis that is divided here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from dbbench.diffusion.noise import Interval
from dbbench.errors import BadInput
from dbbench.limits import Count, Layers, LayersOfBlocks
from dbbench.methods.base import Plan, StepReport
from dbbench.methods.diffusion_blocks import DiffusionBlocks
from dbbench.networks import base as networks
from dbbench.tasks.base import Batch
from dbbench.tasks.masks import FIRST_TIME, UnderMasks, spread, uniform_for


class MaskedBlocks(DiffusionBlocks):
    """Blocks trained one at a time, each for its part of the masking; the one that owns the time predicts."""

    class Options(networks.BaseOptions):  # type: ignore[assignment]  # no sigma, no embedded target: not a subclass
        blocks: Layers = 3
        layers_per_block: LayersOfBlocks | None = None
        overlap: Annotated[float, Field(ge=0, le=1, strict=False)] = 0.05
        block_schedule: Literal["random", "hold_k"] = "random"
        hold: Count | None = None
        shared: Literal["joint", "per_block"] = "joint"
        residency: Literal["all", "state", "active"] = "all"

    options: Options  # type: ignore[assignment]
    task: UnderMasks

    @classmethod
    def check(cls, options: networks.BaseOptions, depth: int) -> None:
        cls.check_cut(options, depth)

    @classmethod
    def condition_width(cls, options: networks.BaseOptions, width: int) -> int | None:
        return None  # the network is told the time by itself

    def set_levels(self) -> None:
        if self.task.shape.kind != "masked_tokens":
            kind = self.task.shape.kind.replace("_", " ")
            raise BadInput(f"method: 'masked_blocks' needs masked tokens, and this task has {kind}")
        self.intervals: list[Interval] = [
            ((self.blocks - b - 1) / self.blocks, (self.blocks - b) / self.blocks) for b in range(self.blocks)
        ]

    def interval(self, block: int) -> Interval:
        """Return the times at which ``block`` is trained: its part and the overlap, from training's earliest time."""
        low, high = self.intervals[block]
        wider = self.options.overlap * (high - low)
        return max(low - wider, FIRST_TIME), min(high + wider, 1.0)

    def step(self, batch: Batch, plan: Plan) -> StepReport:
        block, streams = plan.block, self.setting.streams
        optimizer = self.activate(plan)
        assert batch.clean is not None
        t = spread(batch.samples, self.interval(block), streams.generator("time", block, plan.block_step))
        uniform = uniform_for(batch.clean, streams.generator("noise", block, plan.block_step))
        own = self.task.masked(batch.clean, t, uniform)
        del uniform
        with self.autocast():
            loss = self.task.loss(self.outputs(own.inputs, block), own.targets).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return StepReport(loss.detach(), self.layers_per_block[block], batch.samples)

    def outputs(self, inputs: Any, block: int) -> Tensor:
        """Return the logits [batch, tokens, classes] that ``block`` gives for every position."""
        shell = self._front(block).shell
        state = shell.embed(inputs)
        return shell.outputs(self.network.run(state, self._indices(block)), state.context)

    def predict(self, inputs: Any) -> dict[str, Tensor]:
        """Return the prediction of the block that owns each sample's time, and as ``first_block`` that of the first.

        A block is told the nearest time that it owns. Each runs on all samples, and its own are kept: as many layers
        run as the network has.
        """
        self.model.eval()
        t = inputs["t"]
        owned: Tensor | None = None
        for block, (low, high) in enumerate(self.intervals):
            self.keeper.activate(block, training=False)
            with self.autocast():
                logits = self.outputs(inputs | {"t": t.clamp(max(low, FIRST_TIME), high)}, block)
            given = self.task.prediction(logits)
            if owned is None:
                owned = first = given
            else:
                owned = torch.where((t <= high)[:, None, None], given, owned)
        assert owned is not None
        return {"": owned, "first_block": first}

    def predict_own(self, inputs: Any) -> Tensor:
        return self.predict(inputs)[""]  # the first block's comes with it
