"""DiffusionBlocks: each block of layers is a denoiser of its own noise interval (Shing, Koyama & Akiba, ICLR 2026).

arXiv 2506.14202 v4. The three steps of the conversion: cut the network into B contiguous blocks; give each an interval
of noise levels of equal probability, the first layers the highest; condition every layer on σ by adaptive layer norm.
A step draws one block b, noise levels σ from b's interval and ε ~ N(0, I), and trains b alone:

    z = y + σ·ε                                          y: embedding of the target; z takes the read-out token
    D(z; σ) = c_skip·z + c_out·F_b(c_in·z, c_noise, x)   preconditioning of EDM (Karras et al. 2022, eq. 7)
    loss = E[w(σ) · CE(head(D), target)]                 the paper's block loss, cross-entropy for discrete targets

Prediction follows Euler's method from z ~ N(0, σ_max² I), each step by the block that owns σ, where the denoised
target is the posterior mean Σ_k p_k·e_k over the embeddings e_k; the last distribution p is the answer.

Where paper and released code differ, both are options; the default is the one in the last column:

=================== ======================================== ============================================== =========
option              paper                                    released code                                  default
=================== ======================================== ============================================== =========
weighting           ``edm``: w(σ) on each sample             ``released``: [N] × [N, 1], so mean(CE)·mean(w) paper
residency           ``active`` (its memory formula)          ``all``: one AdamW over everything             released
shared              not said                                 ``joint``: trained with whichever is active    released
inference_embedding normalised                               ``raw``, though training normalises            paper
inference_grid      a step by each block that owns its σ     ``probability``: equally spaced, both ends in  released
gate_start          the network's option; plain at start: 1  0                                              paper
=================== ======================================== ============================================== =========

``shared: per_block``, ``weighting: none``, ``output: plain``, ``inference_grid: block_edges``, ``target_scale``,
``sigma_data`` other than .5 and ``inference_draws`` are this package's: with ‖y‖ = 1 a coordinate of y has a standard
deviation of 1/√width, not .5, and the label can be read off z in the low intervals.
"""

from __future__ import annotations

import copy
import math
import random
from typing import Annotated, Any, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from dbbench.diffusion.noise import NoiseLaw, owner
from dbbench.diffusion.precondition import edm_weight, precondition
from dbbench.diffusion.sampler import euler, inference_sigmas
from dbbench.methods.base import Method, Plan, StepReport
from dbbench.methods.residency import Residency
from dbbench.networks import base as networks
from dbbench.networks.base import Network, initialise, place
from dbbench.networks.parts import NoiseEmbedding
from dbbench.streams import Streams
from dbbench.tasks.base import Batch

Positive = Annotated[float, Field(gt=0, strict=False)]


class TargetTable(nn.Module):
    """The embeddings e_k of the classes, [classes, width]; rows start with norm about ``norm``.

    ``norm`` is a tensor because autograd would keep a Python number as one that no ledger sees made.
    """

    norm: Tensor

    def __init__(self, classes: int, width: int, norm: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, width))
        self.register_buffer("norm", torch.tensor(norm))

    def forward(self, raw: bool = False) -> Tensor:
        """Return e_k, [classes, width]: rows of norm ``norm``, or as they were learnt for ``raw``."""
        weight = self.weight.float()
        return self.norm * (weight if raw else F.normalize(weight, dim=-1))

    def initialise_parameter(self, name: str, parameter: Tensor, generator: torch.Generator) -> None:
        """Rows are normal with standard deviation 1/√width."""
        nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5, generator=generator)


class Front(nn.Module):
    """What surrounds the layers: embedding and head of ``shell``, the noise embedding, the table of targets."""

    def __init__(self, shell: Network, noise: NoiseEmbedding, targets: TargetTable) -> None:
        super().__init__()
        self.shell, self.noise, self.targets = shell, noise, targets


class DiffusionBlocks(Method):
    """Blocks trained one at a time as denoisers of noise intervals, then run in a chain from noise to the target."""

    class Options(networks.BaseOptions):
        blocks: Annotated[int, Field(ge=1)] = 3
        layers_per_block: list[Annotated[int, Field(ge=1)]] | None = None
        overlap: Annotated[float, Field(ge=0, le=1, strict=False)] = 0.05
        partition: Literal["equi_probability", "uniform"] = "equi_probability"
        weighting: Literal["edm", "none", "released"] = "edm"
        output: Literal["preconditioned", "plain"] = "preconditioned"
        p_mean: Annotated[float, Field(strict=False)] = -1.2
        p_std: Positive = 1.2
        sigma_min: Positive = 0.002
        sigma_max: Positive = 80.0
        sigma_data: Positive = 0.5
        target_scale: Positive = 1.0
        targets: Literal["learned", "fixed"] = "learned"
        condition_width: Annotated[int, Field(ge=1)] | None = None
        inference_steps: Annotated[int, Field(ge=1)] | None = None
        inference_grid: Literal["probability", "block_edges"] = "probability"
        inference_embedding: Literal["normalised", "raw"] = "normalised"
        inference_draws: Annotated[int, Field(ge=1)] = 1
        block_schedule: Literal["random", "hold_k"] = "random"
        hold: Annotated[int, Field(ge=1)] | None = None
        shared: Literal["joint", "per_block"] = "joint"
        residency: Literal["all", "state", "active"] = "all"

    options: Options

    @classmethod
    def check(cls, options: networks.BaseOptions, depth: int) -> None:
        assert isinstance(options, cls.Options)
        o = options
        if o.blocks > depth:
            raise ValueError(f"blocks: {o.blocks} is more than the network's {depth} layers")
        if o.layers_per_block is not None and len(o.layers_per_block) != o.blocks:
            raise ValueError(f"layers_per_block: {len(o.layers_per_block)} numbers for blocks: {o.blocks}")
        if o.layers_per_block is not None and sum(o.layers_per_block) != depth:
            raise ValueError(f"layers_per_block: sums to {sum(o.layers_per_block)}, the network has {depth} layers")
        if o.sigma_min >= o.sigma_max:
            raise ValueError(f"sigma_min: {o.sigma_min:g} is not below sigma_max: {o.sigma_max:g}")
        if (o.block_schedule == "hold_k") != (o.hold is not None):
            raise ValueError("hold: goes with block_schedule 'hold_k', and only with it")
        if o.inference_grid == "block_edges" and (o.inference_steps or o.blocks) % o.blocks:
            raise ValueError(f"inference_steps: {o.inference_steps} is no multiple of blocks: {o.blocks}")

    @classmethod
    def split(cls, options: networks.BaseOptions, depth: int) -> list[int]:
        assert isinstance(options, cls.Options)
        if options.layers_per_block is not None:
            return list(options.layers_per_block)
        each, left = divmod(depth, options.blocks)
        return [each + (b < left) for b in range(options.blocks)]

    @classmethod
    def condition_width(cls, options: networks.BaseOptions, width: int) -> int | None:
        assert isinstance(options, cls.Options)
        return options.condition_width or width

    def prepare(self) -> None:
        o, network = self.options, self.network
        self.residency = o.residency
        self.law = NoiseLaw(o.p_mean, o.p_std, o.sigma_min, o.sigma_max)
        self.intervals = self.law.intervals(self.blocks, o.partition)
        self.sigmas = inference_sigmas(self.law, self.intervals, o.inference_steps or self.blocks, o.inference_grid)
        condition_width = self.condition_width(o, network.width)
        assert condition_width is not None
        table = TargetTable(self.task.shape.classes, network.width, o.target_scale)
        front = Front(network, NoiseEmbedding(condition_width), table)
        streams = Streams(self.setting.streams.seed)  # drawn on the host, so that every device starts the same
        initialise(front.noise, streams, "noise")
        initialise(front.targets, streams, "targets")
        example = next(network.parameters())
        place(front, example.device, example.dtype)
        front.targets.requires_grad_(o.targets == "learned")
        fronts = [front] if o.shared == "joint" else [front, *(self._copy(front) for _ in range(1, self.blocks))]
        self.fronts = nn.ModuleList(fronts)
        self.model = nn.ModuleDict({"layers": network.layers, "fronts": self.fronts})
        self._owned = [self._parameters_of(b) for b in range(self.blocks)]
        owned = {p for members in self._owned for p in members.values()}
        self._shared = {n: p for n, p in self.model.named_parameters() if p not in owned and p.requires_grad}
        groups = {f"block {b}": list(members.values()) for b, members in enumerate(self._owned)}
        optimizer = self.setting.optimizer.make(groups | {"shared": self._shared.values()})
        self.optimizers = [optimizer]
        self.keeper = Residency(o.residency, list(groups.values()), optimizer)

    @staticmethod
    def _copy(front: Front) -> Front:
        """Return a copy of ``front`` whose shell has no layers: those belong to the blocks."""
        # tensors are copied here, because a deep copy of a fake one copies the fake world with it
        copies: dict[int, Any] = {id(front.shell.layers): nn.ModuleList()}
        for name, p in front.named_parameters():
            if not name.startswith("shell.layers."):
                copies[id(p)] = nn.Parameter(p.detach().clone(), p.requires_grad)
        copies |= {id(b): b.clone() for b in front.buffers()}
        return copy.deepcopy(front, copies)

    def _parameters_of(self, block: int) -> dict[str, nn.Parameter]:
        """Return what belongs to ``block`` alone: its layers and, with ``shared: per_block``, its own front."""
        prefixes = [f"layers.{i}." for i in self._indices(block)]
        if self.options.shared == "per_block":
            prefixes.append(f"fronts.{block}.")
        named = self.model.named_parameters()
        return {name: p for name, p in named if name.startswith(tuple(prefixes)) and p.requires_grad}

    def _indices(self, block: int) -> list[int]:
        start = sum(self.layers_per_block[:block])
        return self.network.schedule()[start : start + self.layers_per_block[block]]

    def _front(self, block: int) -> Front:
        return cast(Front, self.fronts[block if self.options.shared == "per_block" else 0])

    def plan(self, step: int, fraction: float) -> int:
        """Draw the block uniformly, one for the whole batch, anew every ``hold`` steps."""
        draw = step // (self.options.hold or 1)
        return random.Random(self.setting.streams.key("block", draw)).randrange(self.blocks)

    def may_change(self, plan: Plan) -> set[str]:
        return set(self._owned[plan.block]) | set(self._shared)

    def residents(self, plan: Plan) -> set[str]:
        names = {name for name, _ in self.model.named_parameters()}
        if self.residency != "active":
            return names
        return names - {name for b, members in enumerate(self._owned) if b != plan.block for name in members}

    def shared(self) -> list[str]:
        return list(self._shared)

    @property
    def transferred_bytes(self) -> int:
        return self.keeper.moved_bytes

    @property
    def transfer_seconds(self) -> float:
        return self.keeper.seconds

    def denoise(self, inputs: Tensor, z: Tensor, sigma: Tensor, block: int) -> Tensor:
        """Return the logits [batch, classes] that ``block`` gives for z [batch, width] at ``sigma`` [batch]."""
        front = self._front(block)
        c = precondition(sigma, self.options.sigma_data)
        dtype = next(front.shell.head.parameters()).dtype
        condition = front.noise(c.c_noise)
        state = front.shell.embed(inputs, (c.c_in[:, None] * z).to(dtype))
        x = self.network.run(state, self._indices(block), condition)
        features = front.shell.read(x, state.context)
        if self.options.output == "preconditioned":
            features = (c.c_skip[:, None] * z + c.c_out[:, None] * features).to(dtype)
        return front.shell.head(features, condition)

    def step(self, batch: Batch, plan: Plan) -> StepReport:
        block, o, streams = plan.block, self.options, self.setting.streams
        (optimizer,) = self.optimizers
        self.keeper.activate(block)
        self.setting.optimizer.set_rate(optimizer, plan.block_fraction, f"block {block}")
        self.setting.optimizer.set_rate(optimizer, plan.fraction, "shared")
        self.model.train()
        count = len(batch.targets)
        interval = self.law.widen(self.intervals[block], o.overlap)
        sigma = self.law.sample(interval, count, streams.generator("sigma", block, plan.block_step))
        z = sigma[:, None] * self._noise(count, streams.generator("noise", block, plan.block_step))
        z = z + F.embedding(batch.targets, self._front(block).targets())
        with self.autocast():
            losses = self.task.loss(self.denoise(batch.inputs, z, sigma, block), batch.targets)
            loss = self._weighted(losses, sigma)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return StepReport(losses.detach().mean(), self.layers_per_block[block], count)

    def _weighted(self, losses: Tensor, sigma: Tensor) -> Tensor:
        if self.options.weighting == "none":
            return losses.mean()
        weights = edm_weight(sigma, self.options.sigma_data)
        if self.options.weighting == "released":
            return losses.mean() * weights.mean()  # what broadcasting [N] against [N, 1] comes to
        return (losses * weights).mean()

    def _noise(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randn(count, self.network.width, generator=generator, device=generator.device)

    def predict(self, inputs: Tensor) -> dict[str, Tensor]:
        """Return the chain's prediction, and as ``first_block`` that of the first block alone from pure noise.

        With ``inference_draws`` > 1 the chain's is the mean of the distributions over that many draws of noise.
        """
        self.model.eval()
        draws, first = [], None
        for draw in range(self.options.inference_draws):
            chain, start = self._chain(inputs, self.setting.streams.generator("inference", draw))
            draws.append(chain)
            first = start if first is None else first
        assert first is not None
        return {"": torch.stack(draws).logsumexp(dim=0) - math.log(len(draws)), "first_block": first}

    def _chain(self, inputs: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the log-probabilities at the end of the chain and at its first step, from one draw of noise."""
        raw = self.options.inference_embedding == "raw"
        owners = [owner(sigma, self.intervals) for sigma in self.sigmas]
        results: list[Tensor] = []

        def denoise(z: Tensor, sigma: float) -> Tensor:
            block = owners[len(results)]
            self.keeper.activate(block, training=False)
            with self.autocast():
                logits = self.denoise(inputs, z, torch.full((len(inputs),), sigma, device=z.device), block)
            results.append(logits.float().log_softmax(dim=-1))
            # in the embeddings of the block that reads it, should blocks have their own
            reader = owners[min(len(results), len(owners) - 1)]
            if self.options.shared == "per_block":
                self.keeper.activate(reader, training=False)
            return results[-1].exp() @ self._front(reader).targets(raw)

        z = self.law.sigma_max * self._noise(len(inputs), generator)
        denoise(euler(denoise, z, self.sigmas), self.sigmas[-1])
        return results[-1], results[0]

    def state(self) -> dict[str, Any]:
        self.keeper.gather()
        return super().state()

    def load(self, state: dict[str, Any]) -> None:
        self.keeper.gather()
        super().load(state)
