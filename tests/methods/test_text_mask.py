"""What a logit on text may depend on: the clean past, and its own noise. One position is changed, all are compared."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_cells import make_cell
from torch import Tensor

from dbbench.harness.resolve import resolve_cell
from dbbench.methods.base import Method
from dbbench.methods.diffusion_blocks import DiffusionBlocks
from dbbench.suite.cell import NetworkChoice, TaskChoice

VOCABULARY, TOKENS, BATCH, DEPTH, BLOCKS = 11, 40, 2, 4, 3
WAYS = ["concatenated", "two_pass"]


LLAMA, RECURRENT = NetworkChoice(name="llama", size="micro", depth=DEPTH), NetworkChoice(name="recurrent", size="micro")


@lru_cache
def trained(name: str, recurrent: bool = False, **options: Any) -> Method:
    """Return a method whose parameters are moved off their start: no modulation is zero."""
    task = TaskChoice(name="tokens", vocabulary=VOCABULARY, sequence_length=TOKENS)
    network = RECURRENT if recurrent else LLAMA
    resolved = resolve_cell(
        make_cell(name, name, task=task, network=network, batch_size=BATCH, options=options), "test"
    )
    method = resolved.build(resolved.load_task())
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in method.model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    method.model.eval()
    return method


def blocks(way: str, **options: Any) -> DiffusionBlocks:
    """Return DiffusionBlocks with its streams run in ``way``."""
    chosen = {} if way == "concatenated" else {"streams": way}
    method = trained("diffusion_blocks", blocks=BLOCKS, **chosen, **options)
    assert isinstance(method, DiffusionBlocks)
    return method


def text() -> Tensor:
    return torch.randint(VOCABULARY, (BATCH, TOKENS), generator=torch.Generator().manual_seed(1))


def changed_token(position: int) -> Tensor:
    tokens = text()
    tokens[:, position] = (tokens[:, position] + 1) % VOCABULARY
    return tokens


def which_differ(before: Tensor, after: Tensor) -> list[int]:
    """Return the positions at which any bit of any logit differs."""
    return (before != after).any(dim=-1).any(dim=0).nonzero().flatten().tolist()


@given(position=st.integers(0, TOKENS - 1))
@settings(max_examples=20, deadline=None)
@pytest.mark.parametrize("name", ["backprop", "greedy"])
def test_a_plain_logit_depends_on_its_past_and_itself_alone(name: str, position: int) -> None:
    """The network would read what it is to predict, or not read what it may."""
    method = trained(name)
    with torch.no_grad():
        before, after = method.predict(text()), method.predict(changed_token(position))
    for way in before:
        assert which_differ(before[way], after[way]) == list(range(position, TOKENS))


@given(position=st.integers(0, TOKENS - 1), noisy=st.booleans())
@settings(max_examples=20, deadline=None)
@pytest.mark.parametrize("block", range(BLOCKS))
@pytest.mark.parametrize("way", WAYS)
def test_a_blocks_logit_depends_on_its_clean_past_and_its_own_noise_alone(
    way: str, block: int, position: int, noisy: bool
) -> None:
    """A noisy neighbour, which is made of a token still to come, or the token itself would leak into its prediction."""
    method = blocks(way)
    z = torch.randn(BATCH, TOKENS, method.network.width, generator=torch.Generator().manual_seed(2))
    sigma = torch.tensor([0.3, 2.0])
    with torch.no_grad():
        before = method.denoise(text(), z, sigma, block)
        if noisy:
            other = z.clone()
            other[:, position] += 1.0
            after = method.denoise(text(), other, sigma, block)
        else:
            after = method.denoise(changed_token(position), z, sigma, block)
    assert which_differ(before, after) == ([position] if noisy else list(range(position, TOKENS)))


@given(position=st.integers(0, TOKENS - 1))
@settings(max_examples=10, deadline=None)
@pytest.mark.parametrize("way", WAYS)
def test_a_whole_chain_depends_on_the_past_alone(way: str, position: int) -> None:
    """A perplexity would be of a model that has seen the answer: a chain goes through every block's mask."""
    method = blocks(way, inference_draws=2)
    with torch.no_grad():
        before, after = method.predict(text()), method.predict(changed_token(position))
    for name in before:
        assert which_differ(before[name], after[name])[:1] == [position]


RECURRENT_METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "backprop": ("backprop", {}),
    "truncated": ("backprop", {"truncate": 1}),
    "checkpointing": ("checkpointing", {"truncate": 2}),
    "chain": ("diffusion_blocks", {"blocks": 1, "inference_draws": 2}),
    "chain_of_five": ("diffusion_blocks", {"blocks": 1, "inference_steps": 5, "shared": "per_block"}),
}


@given(position=st.integers(0, TOKENS - 1))
@settings(max_examples=10, deadline=None)
@pytest.mark.parametrize("name", RECURRENT_METHODS)
def test_recurrent_depth_predicts_from_the_past_alone(name: str, position: int) -> None:
    """The core runs several times, and one step of a chain reads what the step before made of its neighbours: what a
    later token changes there must not come back. And the token itself must be read."""
    method, options = RECURRENT_METHODS[name]
    what = trained(method, recurrent=True, **options)
    with torch.no_grad():
        before, after = what.predict(text()), what.predict(changed_token(position))
    for way in before:
        assert which_differ(before[way], after[way]) == list(range(position, TOKENS)), way


@given(position=st.integers(0, TOKENS - 1))
@settings(max_examples=10, deadline=None)
def test_noise_of_recurrent_depth_reaches_no_earlier_position(position: int) -> None:
    """A noisy state is made of the token that its position is to predict: an earlier one must not see it. A later one
    may, for it has that token clean (`dbbench.networks.recurrent`)."""
    method = trained("diffusion_blocks", recurrent=True, blocks=1)
    assert isinstance(method, DiffusionBlocks)
    z = torch.randn(BATCH, TOKENS, method.network.width, generator=torch.Generator().manual_seed(2))
    other, sigma = z.clone(), torch.tensor([0.3, 2.0])
    other[:, position] += 1.0
    with torch.no_grad():
        before, after = (method.denoise(text(), noisy, sigma, 0) for noisy in (z, other))
    assert which_differ(before, after) == list(range(position, TOKENS))
