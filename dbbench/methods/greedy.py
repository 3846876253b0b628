"""Layer-wise greedy training with auxiliary heads (Bengio et al. 2006; Belilovsky et al. 2019, arXiv 1812.11446).

Layers are trained in stages of k. A stage sees the output of the frozen stages before it, which run without a graph,
and learns through its own head; when its share of the budget is spent it is frozen too. Only the stage in training
holds gradients and optimizer state.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from dbbench.errors import BadInput
from dbbench.limits import Layers
from dbbench.methods.base import Method, Plan, StepReport, even_split
from dbbench.networks import base as networks
from dbbench.networks.base import initialise, place
from dbbench.streams import Streams
from dbbench.tasks.base import Batch


class Greedy(Method):
    """Layers in stages, each with its auxiliary head; the last stage's head is the network's.

    ``stages`` splits the layers evenly, the first stages getting what is left over; ``layers_per_stage`` (1 if neither
    is given) fills stage after stage.
    """

    class Options(networks.BaseOptions):
        layers_per_stage: Layers | None = None
        stages: Layers | None = None
        ensemble: bool = False

    options: Options
    staged = True
    blocks_option = "stages"

    @classmethod
    def check(cls, options: networks.BaseOptions, depth: int) -> None:
        assert isinstance(options, cls.Options)
        if options.stages is not None and options.layers_per_stage is not None:
            raise ValueError("stages: cannot go with layers_per_stage")
        for name in ("layers_per_stage", "stages"):
            number = getattr(options, name) or 1
            if number > depth:
                raise ValueError(f"{name}: {number} is more than the network's {depth} layers")

    @classmethod
    def split(cls, options: networks.BaseOptions, depth: int) -> list[int]:
        assert isinstance(options, cls.Options)
        if options.stages is not None:
            return even_split(depth, options.stages)
        k = options.layers_per_stage or 1
        return [min(k, depth - start) for start in range(0, depth, k)]

    def prepare(self) -> None:
        if self.network.recurrences > 1:
            times = self.network.recurrences
            raise BadInput(f"method: 'greedy' freezes layers, and this network runs the same ones {times} times over")
        self.heads = nn.ModuleList(self.network.make_head() for _ in range(self.blocks - 1))
        initialise(self.heads, Streams(self.setting.streams.seed), "auxiliary_heads")
        example = next(self.network.parameters())
        place(self.heads, example.device, example.dtype)
        self.heads.append(self.network.head)
        self.model = nn.ModuleDict({"network": self.network, "heads": self.heads})
        self.optimizers = []
        self._stage = -1
        self._latest = 0

    def _indices(self, stage: int) -> list[int]:
        start = sum(self.layers_per_block[:stage])
        return self.network.schedule()[start : start + self.layers_per_block[stage]]

    def _trained(self, stage: int) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield (name, parameter) of what ``stage`` trains: its layers, its head, and in the first the embedding."""
        layers = {f"network.layers.{i}." for i in self._indices(stage)}
        head = set(self.heads[stage].parameters())
        for name, parameter in self.model.named_parameters():
            in_head = parameter in head  # the last one may share its weights with the embedding
            embedding = stage == 0 and not name.startswith(("network.layers.", "network.head.", "heads."))
            if in_head or embedding or any(name.startswith(prefix) for prefix in layers):
                yield name, parameter

    def may_change(self, plan: Plan) -> set[str]:
        return {name for name, _ in self._trained(plan.block)}

    def _enter(self, stage: int) -> None:
        """Freeze everything but ``stage`` and start its optimizer; the one before is dropped with its state."""
        trained = [parameter for _, parameter in self._trained(stage)]
        self.model.requires_grad_(False)
        for parameter in trained:
            parameter.requires_grad_(True)
        self.optimizers = []
        self.optimizers = [self.setting.optimizer.make({"stage": trained})]
        self._stage, self._latest = stage, max(self._latest, stage)

    def step(self, batch: Batch, plan: Plan) -> StepReport:
        if plan.block != self._stage:
            self._enter(plan.block)
        (optimizer,) = self.optimizers
        self.setting.optimizer.set_rate(optimizer, plan.block_fraction)
        self.model.train()
        with self.autocast():
            with torch.set_grad_enabled(plan.block == 0):
                state = self.network.embed(batch.inputs)
                for stage in range(plan.block):
                    state.x = self.network.run(state, self._indices(stage))
            state.x = self.network.run(state, self._indices(plan.block))
            logits = self.network.outputs(state.x, state.context, self.heads[plan.block])
            loss = self.task.loss(logits, batch.targets).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return StepReport(loss.detach(), self.layers_per_block[plan.block], batch.samples)

    def predict(self, inputs: Any) -> dict[str, Tensor]:
        """Return the last trained head's prediction as the method's own, each head's, and the heads' mean.

        With the option ``ensemble`` the method's own is that mean, of the probabilities or the values.
        """
        self.model.eval()
        ways: dict[str, Tensor] = {}
        with self.autocast():
            state = self.network.embed(inputs)
            for stage in range(self._latest + 1):
                state.x = self.network.run(state, self._indices(stage))
                logits = self.network.outputs(state.x, state.context, self.heads[stage])
                ways[f"head_{stage}"] = self.task.prediction(logits)
        last = ways[f"head_{self._latest}"]
        mean = self.task.mixture(list(ways.values()))
        return {"": mean if self.options.ensemble else last, "ensemble": mean} | ways

    def state(self) -> dict[str, object]:
        return super().state() | {"stage": self._stage, "latest": self._latest}

    def load(self, state: dict[str, object]) -> None:
        if state["stage"] != -1:
            self._enter(state["stage"])  # type: ignore[arg-type]
        self._latest = state["latest"]  # type: ignore[assignment]
        super().load(state)
