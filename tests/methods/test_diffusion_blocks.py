"""DiffusionBlocks: what a step may touch, what leaves the device, and where paper and released code part."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from method_steps import built, plans_of, resolved, train, values
from torch.nn import functional as F

from dbbench.diffusion.precondition import edm_weight
from dbbench.errors import BadInput
from dbbench.methods.base import Plan
from dbbench.methods.diffusion_blocks import DiffusionBlocks
from dbbench.suite.cell import OptimizerChoice

BLOCKS = "diffusion_blocks"
CONSTANT = OptimizerChoice(schedule="constant", warmup=0.0)


def make(**changes: Any) -> tuple[DiffusionBlocks, Any]:
    """Return DiffusionBlocks ready for its first step, and its loop."""
    method, loop = built(BLOCKS, **changes)
    assert isinstance(method, DiffusionBlocks)
    return method, loop


def block_of(method: DiffusionBlocks, name: str) -> int | None:
    """Return the block that a parameter belongs to by its name alone, None for a shared one."""
    kind, index = name.split(".")[:2]
    if kind == "fronts":
        return int(index) if method.options.shared == "per_block" else None
    ends = [sum(method.layers_per_block[: b + 1]) for b in range(method.blocks)]
    return next(b for b, end in enumerate(ends) if int(index) < end)


def optimizer_values(method: DiffusionBlocks) -> dict[str, list[torch.Tensor]]:
    """Return a copy of the optimizer's state by parameter; `Method.state` brings it onto the device first."""
    method.state()
    names = {id(p): name for name, p in method.model.named_parameters()}
    state = method.optimizers[0].state
    return {names[id(p)]: [v.clone() for v in entries.values()] for p, entries in state.items()}


@given(
    depth=st.integers(1, 5),
    seed=st.integers(0, 10_000),
    shared=st.sampled_from(["joint", "per_block"]),
    residency=st.sampled_from(["all", "state", "active"]),
    data=st.data(),
)
@settings(max_examples=15, deadline=None)
def test_a_step_leaves_every_inactive_block_as_it_was(
    depth: int, seed: int, shared: str, residency: str, data: st.DataObject
) -> None:
    """Blocks would not be independent: an inactive one's parameters and moments stay bit-identical, without gradients.

    What is outside `may_change` stays; what is in it and belongs to no block alone is what `shared` lists by name.
    """
    blocks = data.draw(st.integers(1, depth), "blocks")
    method, loop = make(
        depth=depth, seed=seed, blocks=blocks, shared=shared, residency=residency, batch_size=4, optimizer=CONSTANT
    )
    common = {name for name, _ in method.model.named_parameters() if block_of(method, name) is None}
    assert set(method.shared()) == common
    assert bool(common) is (shared == "joint")
    for step in range(3):
        block = data.draw(st.integers(0, blocks - 1), "block")
        plan = Plan(step, block, step, 0.3, 0.3)
        before, moments_before = values(method), optimizer_values(method)
        loop.step(plan)
        assert all(p.grad is None for p in method.model.parameters())
        resident = {name for name, p in method.model.named_parameters() if p.numel()}
        assert resident == method.residents(plan)
        after, moments = values(method), optimizer_values(method)
        changed = {name for name in after if not after[name].equal(before[name])}
        mine = {name for name in after if block_of(method, name) in (block, None)}
        assert method.may_change(plan) == mine
        assert changed <= mine
        assert any(block_of(method, name) == block for name in changed)
        for name in set(moments) - mine:
            assert all(a.equal(b) for a, b in zip(moments[name], moments_before[name], strict=True))
        assert set(moments) - set(moments_before) <= mine


@pytest.mark.parametrize("residency", ["all", "active"])
def test_a_block_trained_alone_is_bitwise_the_block_of_the_joint_run(residency: str) -> None:
    """With parts of its own a block could not be trained on another machine, as the paper says it can."""
    options: dict[str, Any] = {"blocks": 3, "shared": "per_block", "dropout": 0.1, "depth": 4}
    joint, loop = make(residency=residency, **options)
    plans = plans_of(joint, loop, 14)
    train(loop, plans)
    together = values(joint)
    for block in range(3):
        alone, own_loop = make(**options)
        start = values(alone)
        train(own_loop, [plan for plan in plans if plan.block == block])
        trained = values(alone)
        for name in (name for name in trained if block_of(joint, name) == block):
            assert trained[name].equal(together[name]), name
        assert any(not trained[n].equal(start[n]) for n in trained if block_of(joint, n) == block)


@pytest.mark.parametrize("residency", ["state", "active"])
@pytest.mark.parametrize("shared", ["joint", "per_block"])
def test_residency_changes_no_number(residency: str, shared: str) -> None:
    """Saving memory would cost accuracy, or the variants of the table could not be compared."""
    runs = [make(blocks=3, shared=shared, residency=kind) for kind in ("all", residency)]
    losses = [train(loop, plans_of(method, loop, 10)) for method, loop in runs]
    assert losses[0] == losses[1]
    inputs = runs[0][1].task.train_batch(99).inputs
    with torch.no_grad():
        first, second = (method.predict(inputs) for method, _ in runs)
    assert all(first[way].equal(second[way]) for way in first)
    kept, moved = (values(method) for method, _ in runs)
    assert all(kept[name].equal(moved[name]) for name in kept)
    assert runs[0][0].transferred_bytes == 0
    assert runs[1][0].transferred_bytes > 0


def test_bytes_moved_are_those_of_the_blocks_that_went_and_came() -> None:
    """The swap's cost would be reported as another."""
    method, loop = make(blocks=2, depth=2, residency="active")
    parameters = sum(p.nbytes for n, p in method.model.named_parameters() if block_of(method, n) == 1)
    loop.step(Plan(0, 0, 0, 0.5, 0.5))
    assert method.transferred_bytes == parameters  # block 1 leaves, and has no moments yet
    loop.step(Plan(1, 1, 0, 0.5, 0.5))
    counters = 4 * sum(block_of(method, n) == 0 for n, _ in method.model.named_parameters())
    # block 0 leaves with two moments and a step counter for each parameter; block 1 comes back
    assert method.transferred_bytes == parameters + (3 * parameters + counters) + parameters


@pytest.mark.parametrize("residency", ["all", "state", "active"])
@pytest.mark.parametrize("shared", ["joint", "per_block"])
def test_a_saved_run_goes_on_bitwise(residency: str, shared: str) -> None:
    """An interrupted run would end elsewhere; the saving one must go on too."""
    options: dict[str, Any] = {"blocks": 3, "residency": residency, "shared": shared}
    (whole, loop), (saver, saver_loop), (loader, loader_loop) = (make(**options) for _ in range(3))
    plans = plans_of(whole, loop, 10)
    train(loop, plans)
    train(saver_loop, plans[:5])
    state = saver.state()
    loader.load(torch.utils._pytree.tree_map(lambda v: v.clone() if isinstance(v, torch.Tensor) else v, state))
    for other, other_loop in ((saver, saver_loop), (loader, loader_loop)):
        train(other_loop, plans[5:])
        expected, reached = values(whole), values(other)
        assert all(expected[name].equal(reached[name]) for name in expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blocks": 4}, "blocks: 4 is more than the network's 3 layers"),
        ({"blocks": 2, "layers_per_block": [1, 1, 1]}, "layers_per_block: 3 numbers for blocks: 2"),
        ({"blocks": 2, "layers_per_block": [1, 1]}, "layers_per_block: sums to 2, the network has 3 layers"),
        ({"sigma_min": 2.0, "sigma_max": 2.0}, "sigma_min: 2 is not below sigma_max: 2"),
        ({"block_schedule": "hold_k"}, "hold: goes with block_schedule 'hold_k'"),
        ({"hold": 2}, "hold: goes with block_schedule 'hold_k'"),
        ({"inference_grid": "block_edges", "inference_steps": 4}, "inference_steps: 4 is no multiple of blocks: 3"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    """A suite with such a line would fail in every cell, or train something else."""
    with pytest.raises(BadInput) as refusal:
        resolved(BLOCKS, **options)
    assert message in str(refusal.value)


def test_layers_are_split_evenly_or_as_the_suite_says() -> None:
    """A block would have other layers than the table says."""
    assert make(blocks=3, depth=5)[0].layers_per_block == [2, 2, 1]
    assert make(blocks=3, depth=6, layers_per_block=[1, 2, 3])[0].layers_per_block == [1, 2, 3]


def loss_by_hand(method: DiffusionBlocks, plan: Plan, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each sample's cross-entropy and σ as the method's own streams draw them, written out from the paper."""
    streams, options = method.setting.streams, method.options
    interval = method.law.widen(method.intervals[plan.block], options.overlap)
    key = (plan.block, plan.block_step)
    sigma = method.law.sample(interval, len(batch.targets), streams.generator("sigma", *key))
    noise = torch.randn(len(sigma), method.network.width, generator=streams.generator("noise", *key))
    y = F.normalize(method.fronts[0].targets.weight, dim=1)[batch.targets] * options.target_scale
    logits = method.denoise(batch.inputs, y + sigma[:, None] * noise, sigma, plan.block)
    return F.cross_entropy(logits, batch.targets, reduction="none"), sigma


@pytest.mark.parametrize("weighting", ["edm", "none", "released"])
def test_the_gradient_is_that_of_the_loss_written_out(weighting: str) -> None:
    """``released`` must be the literal broadcast of [N] against [N, 1]; the others what their papers say."""
    method, loop = make(blocks=2, depth=2, weighting=weighting, overlap=0.1, target_scale=0.5)
    plan, batch = Plan(0, 1, 0, 0.5, 0.5), loop.task.train_batch(0)
    losses, sigma = loss_by_hand(method, plan, batch)
    weight = edm_weight(sigma, 0.5)
    expected = {
        "edm": (losses * weight).mean(),
        "none": losses.mean(),
        "released": (losses * weight[:, None]).mean(),  # [N] × [N, 1] is [N, N]
    }[weighting]
    parameters = [p for n, p in method.model.named_parameters() if n in method.may_change(plan)]
    gradients = torch.autograd.grad(expected, parameters)
    seen: list[torch.Tensor] = []
    method.optimizers[0].register_step_pre_hook(lambda *_: seen.extend(p.grad.clone() for p in parameters))  # type: ignore[union-attr]
    report = method.step(batch, plan)
    assert float(report.loss) == pytest.approx(float(losses.detach().mean()))
    for mine, theirs in zip(seen, gradients, strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-4, atol=1e-5 * float(theirs.abs().max() + 1e-12))


@pytest.mark.parametrize("output", ["preconditioned", "plain"])
def test_the_denoiser_is_edms_around_the_blocks_layers(output: str) -> None:
    """The block would see another input, or its output would be mixed with z in other proportions."""
    method, loop = make(blocks=3, depth=3, output=output)
    inputs, sigma = loop.task.train_batch(0).inputs, torch.full((16,), 0.4)
    z = torch.randn(16, method.network.width, generator=torch.Generator().manual_seed(1))
    net, front, seen = method.network, method.fronts[0], []
    net.layers[1].register_forward_hook(lambda layer, args, out: seen.append((args[0][:, 0], out[:, 0])))
    net.head.register_forward_hook(lambda head, args, out: seen.append(args))
    method.denoise(inputs, z, sigma, 1)
    (token, read), (features, condition) = seen
    assert torch.allclose(token, z / (0.4**2 + 0.25) ** 0.5 + net.positions[0, 0], atol=1e-6)
    skip, out = 0.25 / (0.4**2 + 0.25), 0.4 * 0.5 / (0.4**2 + 0.25) ** 0.5
    expected = skip * z + out * read if output == "preconditioned" else read
    assert torch.allclose(features, expected, atol=1e-6)
    assert torch.allclose(condition, front.noise(sigma.log() / 4))


@pytest.mark.parametrize(
    ("grid", "steps", "used"),
    [
        ("probability", None, [0, 1, 2]),
        ("probability", 5, [0, 0, 1, 2, 2]),
        ("block_edges", None, [0, 1, 2]),
        ("block_edges", 6, [0, 0, 1, 1, 2, 2]),
    ],
)
def test_a_prediction_runs_every_block_in_order(grid: str, steps: int | None, used: list[int]) -> None:
    """A block that was trained would never be asked."""
    method, loop = make(blocks=3, inference_grid=grid, inference_steps=steps)
    asked: list[int] = []
    ask = method.asked

    def listening(inputs: torch.Tensor, sigma: torch.Tensor, block: int) -> Any:
        asked.append(block)
        low, high = method.intervals[block]
        assert low * (1 - 1e-6) <= float(sigma[0]) <= high * (1 + 1e-6)
        return ask(inputs, sigma, block)

    method.asked = listening  # type: ignore[method-assign]
    method.predict(loop.task.train_batch(0).inputs)
    assert asked == used


def test_a_chain_ends_in_the_target_when_its_denoisers_are_right() -> None:
    """The chain would spoil what the blocks have learnt: with perfect denoisers its z must end at the target."""
    method, loop = make(blocks=3, inference_steps=9)
    batch = loop.task.train_batch(0)
    reached: list[torch.Tensor] = []

    def perfect(z: torch.Tensor) -> torch.Tensor:
        reached.append(z)
        return 100.0 * F.one_hot(batch.targets, 10)

    method.asked = lambda inputs, sigma, block: perfect  # type: ignore[method-assign]
    ways = method.predict(batch.inputs)
    assert (ways[""].argmax(1) == batch.targets).all()
    targets = method.fronts[0].targets()[batch.targets]
    start, end = (float((z - targets).detach().norm()) for z in (reached[0], reached[-1]))
    assert end / start == pytest.approx(0.002 / 80, rel=0.01)


def test_the_normalised_embedding_is_the_default_and_raw_the_released_codes() -> None:
    """The switch between paper and code would switch nothing."""
    ways = {}
    for embedding in ("normalised", "raw"):
        method, loop = make(blocks=2, depth=2, inference_embedding=embedding)
        with torch.no_grad():
            method.fronts[0].targets.weight.mul_(3.0)
            ways[embedding] = method.predict(loop.task.train_batch(0).inputs)[""]
    assert not ways["normalised"].equal(ways["raw"])


def test_several_draws_average_distributions() -> None:
    """The mean over draws of noise would be taken of something else than probabilities."""
    single = make(blocks=2, depth=2)[0]
    several, loop = make(blocks=2, depth=2, inference_draws=3)
    inputs, streams = loop.task.train_batch(0).inputs, several.setting.streams
    with torch.no_grad():
        mean = several.predict(inputs)[""].exp()
        chains = []
        for draw in range(3):
            generator = streams.generator("inference", draw)
            single.setting.streams.generator = lambda *_, drawn=generator: drawn  # type: ignore[method-assign]
            chains.append(single.predict(inputs)[""].exp())
    assert torch.allclose(mean, torch.stack(chains).mean(0), atol=1e-6)
    assert not chains[0].equal(chains[1])


def test_blocks_are_drawn_uniformly_and_held_where_asked() -> None:
    """A block would be trained more than its share, or the schedule would differ from run to run."""
    method, _ = make(blocks=3)
    drawn = [method.plan(step, 0.0) for step in range(3_000)]
    assert all(900 < drawn.count(block) < 1_100 for block in range(3))
    held, _ = make(blocks=3, block_schedule="hold_k", hold=5)
    runs = [held.plan(step, 0.0) for step in range(300)]
    assert all(len(set(runs[i : i + 5])) == 1 for i in range(0, 300, 5))
    assert runs[::5] == drawn[:60]


def test_fixed_targets_are_not_trained() -> None:
    """The ablation would train what it says is fixed."""
    method, loop = make(blocks=2, depth=2, targets="fixed")
    start = values(method)
    train(loop, plans_of(method, loop, 4))
    assert values(method)["fronts.0.targets.weight"].equal(start["fronts.0.targets.weight"])
    assert not any("targets" in name for name in method.shared())


def test_zero_modulation_is_the_plain_network_on_the_same_weights() -> None:
    """Conditioning would disturb the network it is added to: at the start, gate 1, both must compute the same."""
    method, loop = make(blocks=1, depth=3, output="plain")
    plain, _ = built("backprop", depth=3)
    inputs = loop.task.train_batch(0).inputs
    token = torch.randn(16, method.network.width, generator=torch.Generator().manual_seed(2))
    sigma = torch.full((16,), 0.7)
    with torch.no_grad():
        conditioned = method.denoise(inputs, token * (0.7**2 + 0.25) ** 0.5, sigma, 0)
        state = plain.network.embed(inputs, token)
        x = plain.network.run(state, plain.network.schedule())
        assert torch.allclose(conditioned, plain.network.head(plain.network.read(x, state.context)), atol=1e-5)
