"""Counted n-grams, interpolated after Witten and Bell (1991): the rows that a trained language model has to beat.

    p_k(w | h) = (c(h, w) + t(h) · p_{k-1}(w | h')) / (c(h) + t(h)),    p_{-1} = 1 / vocabulary

h are the k tokens before w, h' all but the first of them, c(h, w) how often w came behind h, c(h) its sum over w, and
t(h) how many different tokens came behind h (Witten & Bell, IEEE Trans. Inf. Theory 37, method C). A context never seen
leaves p_{k-1}. ``order`` is the number k of tokens before: 0 counts single tokens.

A step counts a batch, and each text once: from the second epoch on there is nothing new in it. Contexts end at a
window's beginning, in training and in scoring, as they do for a network. What a step reports as its loss is the batch's
cross-entropy *before* it is counted.

What the columns say: there are no layers and no parameters that an optimizer trains. The tables are ``buffers``, and
they grow, so that a rehearsal counts a whole epoch and is traced at its last batch. Counting has no FLOPs by the
convention of matrix products. On fake tensors there is nothing to count: an estimate says so and goes on.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from dbbench.errors import BadInput
from dbbench.methods.base import Method, Plan, StepReport
from dbbench.networks import base as networks
from dbbench.networks.base import place
from dbbench.tasks.base import Batch


class Table(nn.Module):
    """How often each (context, token) came, by its key: the context's number times the vocabulary, and the token's.

    ``keys`` [kinds] are sorted, so that a context's lie side by side; ``before`` [kinds + 1] sums the counts of all the
    keys before each place.
    """

    keys: Tensor
    before: Tensor

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.register_buffer("keys", torch.empty(0, dtype=torch.int64))
        self.register_buffer("before", torch.zeros(1, dtype=torch.int64))

    def count(self, keys: Tensor) -> None:
        """Add one for each of ``keys`` [any number]."""
        fresh, times = torch.unique(keys, return_counts=True)
        self.keys, places = torch.unique(torch.cat([self.keys, fresh]), return_inverse=True)
        known = torch.cat([self.before.diff(), times])
        counts = torch.zeros_like(self.keys).index_add_(0, places, known)
        self.before = torch.cat([counts.new_zeros(1), counts.cumsum(0)])

    def span(self, contexts: Tensor) -> tuple[Tensor, Tensor]:
        """Return (start, end) of each context's keys, both [number]; they are equal where it never came."""
        first = contexts * self.vocabulary
        return torch.searchsorted(self.keys, first), torch.searchsorted(self.keys, first + self.vocabulary)

    def times(self, keys: Tensor) -> Tensor:
        """Return how often each of ``keys`` came, [number]."""
        start, end = torch.searchsorted(self.keys, keys), torch.searchsorted(self.keys, keys, right=True)
        return self.before[end] - self.before[start]


class NGram(Method):
    """Tables of counts, one for each length of context up to ``order``."""

    class Options(networks.BaseOptions):
        order: Annotated[int, Field(ge=0, le=64)] = 2

    options: Options
    not_on_fakes = "tables of counts grow with the text that they have seen, and fake tensors hold none"

    @classmethod
    def check(cls, options: networks.BaseOptions, depth: int) -> None:
        if depth:
            raise ValueError("network: an n-gram trains none, so name it {name: counts}, without a depth")

    @classmethod
    def split(cls, options: networks.BaseOptions, depth: int) -> list[int]:
        return [depth]

    def prepare(self) -> None:
        self.vocabulary = self.task.shape.classes
        if self.vocabulary ** (self.options.order + 1) >= 2**63:
            raise BadInput(f"order: {self.options.order} tokens before one of {self.vocabulary} have no key of 64 bits")
        self.tables = nn.ModuleList(Table(self.vocabulary) for _ in range(self.options.order + 1))
        place(self.tables, self.setting.device, torch.float32)
        self.model = nn.ModuleDict({"network": self.network, "tables": self.tables})
        self.optimizers = []

    def rehearsal(self) -> list[tuple[int, bool]]:
        steps = self.task.batches_per_epoch or 1
        return [(0, step == steps - 1) for step in range(steps)]

    def step(self, batch: Batch, plan: Plan) -> StepReport:
        loss = -self._probability(batch).log().mean()
        if plan.block_step < (self.task.batches_per_epoch or plan.block_step + 1):
            for table, contexts, known in self._by_length(batch.inputs):
                table.count((contexts * self.vocabulary + batch.targets)[known])
        return StepReport(loss, 0, batch.samples)

    def _by_length(self, inputs: Tensor) -> Iterator[tuple[Table, Tensor, Tensor]]:
        """Yield each table with the number of the context of every place, and whether the window has so long a one.

        Both are of the shape [batch, tokens] of ``inputs``; a context's last token is the place's own.
        """
        contexts = torch.zeros_like(inputs)
        places = torch.arange(inputs.shape[1], device=inputs.device).expand_as(inputs)
        for length, table in enumerate(self.tables):
            if length:
                earlier = inputs.roll(length - 1, dims=1)
                contexts = contexts + earlier * self.vocabulary ** (length - 1)
            yield cast(Table, table), contexts, places >= length - 1

    def _probability(self, batch: Batch) -> Tensor:
        """Return p of every target, [batch, tokens]."""
        p = torch.full(batch.targets.shape, 1 / self.vocabulary, device=batch.targets.device)
        for table, contexts, known in self._by_length(batch.inputs):
            start, end = table.span(contexts)
            kinds, total = end - start, table.before[end] - table.before[start]
            mixed = (table.times(contexts * self.vocabulary + batch.targets) + kinds * p) / (total + kinds)
            p = torch.where(known & (kinds > 0), mixed, p)
        return p

    def predict(self, inputs: Any) -> dict[str, Tensor]:
        p = torch.full((inputs.numel(), self.vocabulary), 1 / self.vocabulary, device=inputs.device)
        for table, contexts, known in self._by_length(inputs):
            start, end = table.span(contexts.flatten())
            kinds = torch.where(known.flatten(), end - start, 0)
            weight = (table.before[start + kinds] - table.before[start] + kinds).float()
            p *= torch.where(kinds > 0, kinds / weight, 1).unsqueeze(1)
            # the keys of all contexts in turn: where each one's begin among them, and in the table
            rows = torch.arange(len(kinds), device=inputs.device).repeat_interleave(kinds)
            skipped = (start - kinds.cumsum(0) + kinds).repeat_interleave(kinds)
            places = skipped + torch.arange(len(rows), device=inputs.device)
            times = table.before[places + 1] - table.before[places]
            p[rows, table.keys[places] % self.vocabulary] += times / weight[rows]
        return {"": p.log_().view(*inputs.shape, self.vocabulary)}

    def load(self, state: dict[str, Any]) -> None:
        for name, values in state["model"].items():
            owner, _, buffer = name.rpartition(".")
            setattr(self.model.get_submodule(owner), buffer, values.clone())
