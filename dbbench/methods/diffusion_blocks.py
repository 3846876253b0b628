"""DiffusionBlocks: each block of layers is a denoiser of its own noise interval (Shing, Koyama & Akiba, ICLR 2026).

arXiv 2506.14202 v4. The three steps of the conversion: cut the network into B contiguous blocks; give each an interval
of noise levels of equal probability, the first layers the highest; condition every layer on σ by adaptive layer norm.
A step draws one block b, noise levels σ from b's interval and ε ~ N(0, I), and trains b alone:

    z = y + σ·ε                                          y: the target, or its embedding (`dbbench.methods.denoised`)
    D(z; σ) = c_skip·z + c_out·F_b(c_in·z, c_noise, x)   preconditioning of EDM (Karras et al. 2022, eq. 7)
    loss = E[w(σ) · CE(head(D), target)]                 the paper's block loss, cross-entropy for discrete targets,
    loss = E[w(σ) · |D − y|²]                            and the square for latents

Prediction of a discrete target follows Euler's method from z ~ N(0, σ_max² I), each step by the block that owns σ,
where the denoised target is the posterior mean Σ_k p_k·e_k over the embeddings e_k; the last distribution p is the
answer. A noisy latent is denoised by the block that owns its σ.

A network of recurrent depth is not divided: all of it is one denoiser of every σ, trained in a single pass of its core
on z in the place of backpropagation through K applications of it; a prediction takes K steps of Euler's method, so that
the core is applied K times, as in the network's own form (`dbbench.networks.recurrent`).

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

On text the paper has two ways to let a noisy token see its clean past: ``streams: concatenated`` runs both streams as
one sequence of twice the length; ``two_pass`` runs the clean one, and then the noisy one on its keys and values
(`dbbench.methods.denoised.DenoisedTokens`). ``clean_weight`` λ adds the clean stream's own cross-entropy on the next
tokens, loss + λ·CE(head(F_b(x)), target): not the paper's, reported elsewhere to close its gap on text.
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from dbbench.diffusion.noise import NoiseLaw, owner
from dbbench.diffusion.precondition import edm_weight
from dbbench.diffusion.sampler import euler, inference_sigmas
from dbbench.errors import BadInput
from dbbench.limits import Count, Layers, LayersOfBlocks, NotNegative, Positive, Times, Width
from dbbench.methods.base import Method, Plan, StepReport, even_split
from dbbench.methods.denoised import (
    DenoisedLatents,
    DenoisedTokens,
    Front,
    Run,
    TargetTable,
    denoised_for,
    over,
)
from dbbench.methods.residency import Residency
from dbbench.networks import base as networks
from dbbench.networks.base import Network, initialise, place
from dbbench.networks.parts import NoiseEmbedding
from dbbench.streams import Streams
from dbbench.tasks.base import Batch


class DiffusionBlocks(Method):
    """Blocks trained one at a time as denoisers of noise intervals, then run in a chain from noise to the target."""

    class Options(networks.BaseOptions):
        blocks: Layers = 3
        layers_per_block: LayersOfBlocks | None = None
        overlap: Annotated[float, Field(ge=0, le=1, strict=False)] = 0.05
        partition: Literal["equi_probability", "uniform"] = "equi_probability"
        weighting: Literal["edm", "none", "released"] = "edm"
        output: Literal["preconditioned", "plain"] = "preconditioned"
        p_mean: Annotated[float, Field(ge=-1000, le=1000, strict=False)] = -1.2
        p_std: Positive = 1.2
        sigma_min: Positive = 0.002
        sigma_max: Positive = 80.0
        sigma_data: Positive = 0.5
        target_scale: Positive = 1.0
        targets: Literal["learned", "fixed"] = "learned"
        condition_width: Width | None = None
        inference_steps: Times | None = None
        inference_grid: Literal["probability", "block_edges"] = "probability"
        inference_embedding: Literal["normalised", "raw"] = "normalised"
        inference_draws: Times = 1
        shown_draws: list[Times] = Field(default_factory=list, max_length=1000)
        streams: Literal["concatenated", "two_pass"] = "concatenated"
        clean_weight: NotNegative = 0.0
        block_schedule: Literal["random", "hold_k"] = "random"
        hold: Count | None = None
        shared: Literal["joint", "per_block"] = "joint"
        residency: Literal["all", "state", "active"] = "all"

    options: Options
    blocks_option = "blocks"

    @classmethod
    def check(cls, options: networks.BaseOptions, depth: int) -> None:
        assert isinstance(options, cls.Options)
        o = options
        cls.check_cut(o, depth)
        if o.sigma_min >= o.sigma_max:
            raise ValueError(f"sigma_min: {o.sigma_min:g} is not below sigma_max: {o.sigma_max:g}")
        if o.inference_grid == "block_edges" and (o.inference_steps or o.blocks) % o.blocks:
            raise ValueError(f"inference_steps: {o.inference_steps} is no multiple of blocks: {o.blocks}")

    @staticmethod
    def check_cut(o: Any, depth: int) -> None:
        """Raise ValueError if the options ``o`` that divide the network and choose a block do not suit ``depth``."""
        if o.blocks > depth:
            raise ValueError(f"blocks: {o.blocks} is more than the network's {depth} layers")
        if o.layers_per_block is not None and len(o.layers_per_block) != o.blocks:
            raise ValueError(f"layers_per_block: {len(o.layers_per_block)} numbers for blocks: {o.blocks}")
        if o.layers_per_block is not None and sum(o.layers_per_block) != depth:
            raise ValueError(f"layers_per_block: sums to {sum(o.layers_per_block)}, the network has {depth} layers")
        if (o.block_schedule == "hold_k") != (o.hold is not None):
            raise ValueError("hold: goes with block_schedule 'hold_k', and only with it")

    @classmethod
    def split(cls, options: networks.BaseOptions, depth: int) -> list[int]:
        assert isinstance(options, cls.Options)
        if options.layers_per_block is not None:
            return list(options.layers_per_block)
        return even_split(depth, options.blocks)

    @classmethod
    def condition_width(cls, options: networks.BaseOptions, width: int) -> int | None:
        assert isinstance(options, cls.Options)
        return options.condition_width or width

    def prepare(self) -> None:
        o, network = self.options, self.network
        self.residency = o.residency
        self.set_levels()
        front = self._surround(network)
        example = next(network.parameters())
        place(front, example.device, example.dtype)
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

    def set_levels(self) -> None:
        """Decide what the noise is, and which of its levels each block owns."""
        o, times = self.options, self.network.recurrences
        if times > 1 and self.blocks > 1:
            raise BadInput(f"blocks: must be 1, not {self.blocks}, where a network runs its layers {times} times over")
        self.law = NoiseLaw(o.p_mean, o.p_std, o.sigma_min, o.sigma_max)
        self.intervals = self.law.intervals(self.blocks, o.partition)
        steps = o.inference_steps or max(self.blocks, times)
        self.sigmas = inference_sigmas(self.law, self.intervals, steps, o.inference_grid)
        self.denoised = denoised_for(self.task, self.network, o)

    def _surround(self, network: Network) -> Front:
        """Return ``network`` with what it lacks for its blocks to be denoisers, filled from the seed."""
        o, condition_width = self.options, self.condition_width(self.options, network.width)
        if network.denoiser:
            return Front(network, None, None)
        assert condition_width is not None
        noise = NoiseEmbedding(condition_width)
        known = network.target_weight()
        if known is not None and o.targets == "fixed":
            raise BadInput("targets: cannot be 'fixed' where they are the network's own embeddings")
        table = TargetTable(self.task.shape.classes, network.width, o.target_scale, known)
        streams = Streams(self.setting.streams.seed)  # drawn on the host, so that every device starts the same
        initialise(noise, streams, "noise")
        if known is None:
            initialise(table, streams, "targets")
            table.requires_grad_(o.targets == "learned")
        return Front(network, noise, table)

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

    def denoise(self, inputs: Any, z: Tensor, sigma: Tensor, block: int) -> Tensor:
        """Return what ``block`` gives for z [batch, …] at ``sigma`` [batch]: logits, or the denoised latents D."""
        return self.asked(inputs, sigma, block)(z)

    def asked(self, inputs: Any, sigma: Tensor, block: int) -> Callable[[Tensor], Tensor]:
        """Return `denoise` as a function of z: what does not depend on z is done once."""
        return self.denoised.asked(self._front(block), inputs, sigma, self._runner(block))

    def _runner(self, block: int) -> Run:
        indices = self._indices(block)
        return lambda state, condition: self.network.run(state, indices, condition)

    def activate(self, plan: Plan) -> torch.optim.Optimizer:
        """Bring the block of ``plan`` onto the device and return the optimizer with its rates set for the step."""
        (optimizer,) = self.optimizers
        self.keeper.activate(plan.block)
        self.setting.optimizer.set_rate(optimizer, plan.block_fraction, f"block {plan.block}")
        self.setting.optimizer.set_rate(optimizer, plan.fraction, "shared")
        self.model.train()
        return optimizer

    def step(self, batch: Batch, plan: Plan) -> StepReport:
        block, o, streams = plan.block, self.options, self.setting.streams
        optimizer = self.activate(plan)
        count = batch.samples
        interval = self.law.widen(self.intervals[block], o.overlap)
        sigma = self.law.sample(interval, count, streams.generator("sigma", block, plan.block_step))
        noise = self._noise(batch.inputs, streams.generator("noise", block, plan.block_step))
        z = over(sigma, noise) * noise
        del noise
        z = z + self.denoised.clean(batch, self._front(block))
        with self.autocast():
            losses, clean_losses = self._losses(batch, z, sigma, block)
            loss = self._weighted(losses, sigma)
            if clean_losses is not None:
                loss = loss + o.clean_weight * clean_losses.mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return StepReport(losses.detach().mean(), self.layers_per_block[block], count)

    def _losses(self, batch: Batch, z: Tensor, sigma: Tensor, block: int) -> tuple[Tensor, Tensor | None]:
        """Return each sample's loss, and that of the clean stream where it counts; no logits outlive this."""
        wanted = self.denoised.wanted(batch)
        if not self.options.clean_weight:
            return self.task.loss(self.denoise(batch.inputs, z, sigma, block), wanted), None
        assert isinstance(self.denoised, DenoisedTokens)
        noisy, clean = self.denoised.both(self._front(block), batch.inputs, z, sigma, self._runner(block))
        return self.task.loss(noisy, wanted), self.task.loss(clean, batch.targets)

    def _weighted(self, losses: Tensor, sigma: Tensor) -> Tensor:
        if self.options.weighting == "none":
            return losses.mean()
        weights = edm_weight(sigma, self.options.sigma_data)
        if self.options.weighting == "released":
            return losses.mean() * weights.mean()  # what broadcasting [N] against [N, 1] comes to
        return (losses * weights).mean()

    def _noise(self, inputs: Any, generator: torch.Generator) -> Tensor:
        shape = self.denoised.shape(inputs, self.network.width)
        return torch.randn(shape, generator=generator, device=generator.device)

    def predict(self, inputs: Any) -> dict[str, Tensor]:
        """Return the chain's prediction, and as ``first_block`` that of the first block alone from pure noise.

        The chain's is the mean of the distributions over ``inference_draws`` draws of noise, and as ``draws_N`` over N,
        for each N of ``shown_draws``. Noisy latents are not generated but denoised, at the level they have.
        """
        return self._predict(inputs, self.options.shown_draws)

    def predict_own(self, inputs: Any) -> Tensor:
        return self._predict(inputs, [])[""]

    def _predict(self, inputs: Any, shown: Sequence[int]) -> dict[str, Tensor]:
        self.model.eval()
        if isinstance(self.denoised, DenoisedLatents):
            return {"": self._denoise_each(self.denoised, inputs)}
        own = self.options.inference_draws
        first, means = self._chains(inputs, {own, *shown})
        return {"": means[own], "first_block": first} | {f"draws_{count}": means[count] for count in shown}

    def _denoise_each(self, latents: DenoisedLatents, inputs: Any) -> Tensor:
        """Return what the block that owns each sample's σ makes of it: each runs on all, and its own are kept."""
        z, sigma = latents.start(inputs)
        denoised = torch.zeros_like(z)
        for block, (low, high) in enumerate(self.intervals):
            self.keeper.activate(block, training=False)
            with self.autocast():
                given = self.denoise(inputs, z, sigma.clamp(low, high), block)
            owned = (sigma > low) if block < self.blocks - 1 else torch.ones_like(sigma, dtype=torch.bool)
            if block > 0:
                owned = owned & (sigma <= high)
            denoised = torch.where(over(owned, z), given, denoised)
        return self.task.prediction(latents.function_of(denoised, z, sigma))

    def _chains(self, inputs: Any, counts: set[int]) -> tuple[Tensor, dict[int, Tensor]]:
        """Return log-probabilities: of the first step from the first draw of noise, and of the ends of the chains.

        Those are the means of the distributions over as many draws as ``counts`` says, by that number. The chains go
        through the noise levels together, so that a block comes onto the device once.
        """
        owners = iter([owner(sigma, self.intervals) for sigma in self.sigmas])
        block = next(owners)
        streams, draws = self.setting.streams, range(max(counts))
        starts: list[Tensor] = []

        def distributions(z: Tensor, sigma: float) -> Iterator[Tensor]:
            self.keeper.activate(block, training=False)
            level = torch.full((z.shape[1],), sigma, device=z.device)
            with self.autocast():
                asked = self.asked(inputs, level, block)
            for one in z:
                with self.autocast():
                    logits = asked(one)
                p = self.task.prediction(logits)
                if not starts:
                    starts.append(p)
                yield p

        def denoise(z: Tensor, sigma: float) -> Tensor:
            nonlocal block
            reader = next(owners)
            embeddings = self._embeddings(reader)
            denoised = torch.stack([p.exp() @ embeddings for p in distributions(z, sigma)])
            block = reader
            return denoised

        noise = [self._noise(inputs, streams.generator("inference", draw)) for draw in draws]
        z = euler(denoise, self.law.sigma_max * torch.stack(noise), self.sigmas)
        means, total = {}, None
        for count, p in enumerate(distributions(z, self.sigmas[-1]), 1):
            total = p if total is None else torch.logaddexp(total, p)
            if count in counts:
                means[count] = total - math.log(count)
        return starts[0], means

    def _embeddings(self, reader: int) -> Tensor:
        """Return e_k, [classes, width], as the block that reads their mean has them, should blocks have their own."""
        if self.options.shared == "per_block":
            self.keeper.activate(reader, training=False)
        table = self._front(reader).targets
        assert table is not None
        return table(self.options.inference_embedding == "raw")

    def state(self) -> dict[str, Any]:
        self.keeper.gather()
        return super().state()

    def load(self, state: dict[str, Any]) -> None:
        self.keeper.gather()
        super().load(state)
