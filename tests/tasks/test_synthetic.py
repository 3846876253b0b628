"""Synthetic inputs: what they are drawn from, and that a denoising batch is EDM's."""

from __future__ import annotations

import math

import pytest
import torch

from dbbench.streams import Streams
from dbbench.tasks.base import Batch
from dbbench.tasks.synthetic import Latents, MaskedTokens, SyntheticImages, Tokens


def latents(batch_size: int = 4, **options: object) -> Latents:
    return Latents(Latents.Options(**options), Streams(0), batch_size)


def test_a_networks_loss_is_edms_on_the_denoised() -> None:
    """The end-to-end denoiser would be trained under another weight than Karras et al.'s eq. 8."""
    task, generator = latents(size=4), torch.Generator().manual_seed(0)
    clean, noise, given = (torch.randn(4, 4, 4, 4, generator=generator, dtype=torch.float64) for _ in range(3))
    sigma = torch.tensor([0.01, 0.5, 2.0, 70.0], dtype=torch.float64)
    batch = task.noised(clean, torch.zeros(4, dtype=torch.long), sigma, noise)
    s = sigma.view(4, 1, 1, 1)
    z = clean + s * noise
    assert torch.allclose(batch.inputs["noisy"], z / (s**2 + 0.25).sqrt())
    assert torch.allclose(batch.inputs["c_noise"], sigma.log() / 4)
    denoised = 0.25 / (s**2 + 0.25) * z + s * 0.5 / (s**2 + 0.25).sqrt() * given
    weight = (sigma**2 + 0.25) / (sigma * 0.5) ** 2
    expected = weight * (denoised - clean).square().flatten(1).mean(dim=1)
    assert torch.allclose((given - batch.targets).square().flatten(1).mean(dim=1), expected)
    assert torch.allclose(task.loss(given, batch.targets), expected, rtol=1e-5)


def test_latents_have_edms_deviation_and_some_lose_their_label() -> None:
    """The preconditioning's sigma_data would be another's, or guidance could not be trained."""
    batch = latents(batch_size=2000, size=2, classes=7).train_batch(0)
    assert batch.clean is not None and batch.clean.std().item() == pytest.approx(0.5, rel=0.02)
    labels = batch.inputs["label"]
    assert 0.07 < (labels == 7).double().mean().item() < 0.13
    assert set(labels.tolist()) == set(range(8))


def test_tokens_are_to_be_predicted_from_those_before() -> None:
    """Targets would not be the next tokens."""
    task = Tokens(Tokens.Options(vocabulary=50, sequence_length=9), Streams(0), 3)
    batch = task.train_batch(2)
    assert batch.inputs.shape == batch.targets.shape == (3, 9)
    assert torch.equal(batch.inputs[:, 1:], batch.targets[:, :-1])
    assert int(batch.targets.max()) < 50
    uniform = torch.full((3, 9, 50), 1 / 50).log()
    assert task.measure(uniform, batch.targets)["cross_entropy"] == pytest.approx(3 * torch.tensor(50.0).log().item())


def test_masked_tokens_are_hidden_and_weighted_as_text_under_masks_is() -> None:
    """A cell without its corpus would take other steps than the one that it stands for: its uniform guess costs the
    logarithm of the vocabulary."""
    task = MaskedTokens(MaskedTokens.Options(vocabulary=50, sequence_length=64), Streams(0), 64)
    batch = task.train_batch(2)
    masked = batch.targets["masked"]
    assert batch.clean is not None and torch.equal(batch.inputs["tokens"][~masked], batch.clean[~masked])
    assert set(batch.inputs["tokens"][masked].tolist()) == {50}
    assert masked.double().mean().item() == pytest.approx(0.5, abs=0.02)
    uniform = torch.full((64, 64, 50), 1 / 50).log()
    assert task.measure(uniform, batch.targets)["bound"] / 64 == pytest.approx(math.log(50), rel=0.1)


@pytest.mark.parametrize("kind", [Latents, SyntheticImages, Tokens, MaskedTokens])
def test_a_batch_is_a_function_of_its_number_and_the_seed(kind: type) -> None:
    """Two methods would see other inputs, or evaluation would be on what was trained."""
    small = {"size": 4} if kind is Latents else {"image_size": 8} if kind is SyntheticImages else {"sequence_length": 8}
    task, again, other = (kind(kind.Options(**small), Streams(seed), 2) for seed in (0, 0, 1))

    def drawn(batch: Batch) -> torch.Tensor:
        return batch.targets["tokens"] if kind is MaskedTokens else batch.targets

    target = drawn(task.train_batch(3))
    assert torch.equal(target, drawn(again.train_batch(3)))
    evaluation = next(iter(task.evaluation_batches("test")))
    for elsewhere in map(drawn, (task.train_batch(4), other.train_batch(3), evaluation)):
        assert not torch.equal(target, elsewhere)
