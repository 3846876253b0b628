"""DiffusionBlocks on latents and on tokens: the loss is the paper's, and a noise level has one block that owns it."""

from __future__ import annotations

import pytest
import torch
from tiny_cells import make_cell
from torch import Tensor
from torch.nn import functional as F

from dbbench.errors import BadInput
from dbbench.harness.resolve import resolve_cell
from dbbench.methods.base import Plan
from dbbench.methods.denoised import DenoisedLatents
from dbbench.methods.diffusion_blocks import DiffusionBlocks
from dbbench.suite.cell import NetworkChoice, TaskChoice

LATENTS = (TaskChoice(name="latents", size=8, classes=5), NetworkChoice(name="dit", size="micro/2", depth=4))
TOKENS = (
    TaskChoice(name="tokens", vocabulary=11, sequence_length=6),
    NetworkChoice(name="llama", size="micro", depth=4),
)
PLAN = Plan(0, 1, 0, 0.5, 0.5)


def blocks_on(task: TaskChoice, network: NetworkChoice, **options: object) -> DiffusionBlocks:
    """Return the method with two blocks, its parameters moved off their start so that nothing is zero."""
    chosen = {"blocks": 2} | options
    cell = make_cell("b", "diffusion_blocks", task=task, network=network, batch_size=8, options=chosen)
    resolved = resolve_cell(cell, cell.suite)
    method = resolved.build(resolved.load_task())
    assert isinstance(method, DiffusionBlocks)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in method.model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return method


def drawn(method: DiffusionBlocks, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return the σ and ε of the plan's step."""
    streams = method.setting.streams
    interval = method.law.widen(method.intervals[1], method.options.overlap)
    sigma = method.law.sample(interval, 8, streams.generator("sigma", 1, 0))
    return sigma, torch.randn(shape, generator=streams.generator("noise", 1, 0))


@pytest.mark.parametrize("weighting", ["edm", "none"])
def test_the_loss_on_latents_is_the_weighted_square(weighting: str) -> None:
    """E[w(σ)·|D − y|²], D = c_skip·z + c_out·F (Karras et al. 2022, eq. 2 and 7), written out."""
    method = blocks_on(*LATENTS, weighting=weighting)
    batch = method.task.train_batch(0)
    y = batch.clean
    assert y is not None
    sigma, noise = drawn(method, tuple(y.shape))
    s = sigma.view(-1, 1, 1, 1)
    z, root = y + s * noise, (s**2 + 0.25).sqrt()
    network = method.network
    with torch.no_grad():
        state = network.embed({"noisy": z / root, "c_noise": sigma.log() / 4, "label": batch.inputs["label"]})
        given = network.outputs(network.run(state, [2, 3]), state.context)
    square = (0.25 / root**2 * z + s * 0.5 / root * given - y).square().flatten(1).mean(dim=1)
    weight = (sigma**2 + 0.25) / (sigma * 0.5) ** 2
    seen = []
    weighted = method._weighted
    method._weighted = lambda *args: seen.append(weighted(*args)) or seen[-1]  # type: ignore[method-assign]
    report = method.step(batch, PLAN)
    assert torch.allclose(report.loss, square.mean(), rtol=1e-4)
    expected = (weight * square).mean() if weighting == "edm" else square.mean()
    assert torch.allclose(seen[0], expected, rtol=1e-4)


@pytest.mark.parametrize("output", ["preconditioned", "plain"])
def test_a_noisy_latent_is_denoised_by_the_block_that_owns_its_level(output: str) -> None:
    """A prediction would come from a block that was never trained at that noise."""
    method = blocks_on(*LATENTS, output=output)
    batch = method.task.train_batch(0)
    form = method.denoised
    assert isinstance(form, DenoisedLatents)
    with torch.no_grad():
        prediction = method.predict(batch.inputs)[""]
        z, sigma = form.start(batch.inputs)
        border = method.intervals[0][0]
        assert 0 < int((sigma > border).sum()) < 8  # both blocks have something to do
        for sample, level in enumerate(sigma.tolist()):
            own = method.denoise(batch.inputs, z, sigma, 0 if level > border else 1)
            assert torch.allclose(prediction[sample], form.function_of(own, z, sigma)[sample], rtol=1e-3, atol=1e-4)


def test_the_loss_on_tokens_is_the_weighted_cross_entropy_of_every_position() -> None:
    """Noise on the normalised next-token embeddings, the clean tokens beside (the paper's autoregressive form)."""
    method = blocks_on(*TOKENS, weighting="none")
    batch = method.task.train_batch(0)
    y = F.normalize(method.network.embedding.weight[batch.targets], dim=-1)
    sigma, noise = drawn(method, tuple(y.shape))
    with torch.no_grad():
        logits = method.denoise(batch.inputs, y + sigma.view(-1, 1, 1) * noise, sigma, 1)
    assert logits.shape == (8, 6, 11)
    expected = F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten())
    assert torch.allclose(method.step(batch, PLAN).loss, expected, rtol=1e-5)


def test_the_targets_of_a_decoder_are_its_own_embeddings() -> None:
    """A second table of the vocabulary would be counted, or be frozen with the network's own."""
    method = blocks_on(*TOKENS)
    assert sum(p.shape == (11, 32) for p in method.model.parameters()) == 2  # embedding and head
    assert method.fronts[0].targets.weight is method.network.embedding.weight
    with pytest.raises(BadInput, match="targets: cannot be 'fixed'"):
        blocks_on(*TOKENS, targets="fixed")
