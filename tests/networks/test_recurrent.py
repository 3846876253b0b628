"""Recurrent depth: the core is applied K times to a state with the input given anew, and sees no later token."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stirred import stirred
from torch import Tensor

from dbbench.networks.base import InputShape, State
from dbbench.networks.recurrent import SIZES, Recurrent

VOCABULARY, TOKENS, WIDTH = 11, 6, 32
SHAPE = InputShape(VOCABULARY, "tokens", sequence_length=TOKENS)
TEXT = torch.randint(VOCABULARY, (2, TOKENS), generator=torch.Generator().manual_seed(0))


def recurrent(condition_width: int | None = None, **options: object) -> Recurrent:
    """Return the smallest network, its modulation no longer at zero."""
    return stirred(Recurrent.build("micro", SHAPE, Recurrent.Options(**options), condition_width=condition_width))


@pytest.mark.parametrize("norms", ["sandwich", "pre"])
@pytest.mark.parametrize("times", [1, 4])
def test_the_core_runs_so_many_times_on_its_own_result(times: int, norms: str) -> None:
    """The recurrence would be another: written out by hand, layer by layer, it must give the same bits."""
    network = recurrent(recurrences=times, norms=norms)
    assert network.schedule() == [0, 1] * times
    with torch.no_grad():
        embedded = network.prelude[0](network.embedding(TEXT), context := {"cos": network.cos, "sin": network.sin})
        state = torch.zeros_like(embedded)
        for _ in range(times):
            for layer in network.layers:
                state = layer(state, context | {"injected": embedded})
        assert torch.equal(network(TEXT), network.head(network.coda[0](state, context)))


def test_the_input_is_given_anew_each_time() -> None:
    """The state would forget the text: with the map of [s, e] set to pass e alone, one application is as good as K."""
    one, many = recurrent(recurrences=1), recurrent(recurrences=5)
    with torch.no_grad():
        for network in (one, many):
            adapter = network.layers[0].adapter
            assert adapter is not None and network.layers[1].adapter is None
            adapter.weight.copy_(torch.cat([torch.zeros(WIDTH, WIDTH), torch.eye(WIDTH)], dim=1))
        assert torch.equal(one(TEXT), many(TEXT))


def test_norms_behind_the_sums_keep_the_state_at_one_size() -> None:
    """A state would grow with the number of recurrences, and K could not be chosen after training."""
    with torch.no_grad():
        sizes = {}
        for norms in ("sandwich", "pre"):
            network = recurrent(recurrences=16, norms=norms)
            sizes[norms] = network.run(network.embed(TEXT), network.schedule()).square().mean().sqrt().item()
    assert sizes["sandwich"] == pytest.approx(1.0, rel=1e-3)
    assert sizes["pre"] > 1.5


@given(position=st.integers(1, TOKENS - 1), token=st.integers(0, VOCABULARY - 1))
@settings(max_examples=20, deadline=None)
def test_no_logit_depends_on_a_later_token(position: int, token: int) -> None:
    """The model would read what it is to predict: perturb one token, and everything before is bit for bit as it was."""
    network, changed = recurrent(), TEXT.clone()
    changed[:, position] = token
    with torch.no_grad():
        assert torch.equal(network(TEXT)[:, :position], network(changed)[:, :position])


def denoised(network: Recurrent, text: Tensor, noisy: Tensor, condition: Tensor) -> Tensor:
    state = network.embed(text, noisy)
    with torch.no_grad():
        x = network.run(state, [0, 1], condition)
        return network.head(network.read(x, state.context), condition)


@given(position=st.integers(0, TOKENS - 1), stream=st.sampled_from(["clean", "noisy"]))
@settings(max_examples=20, deadline=None)
def test_as_a_denoiser_no_logit_depends_on_a_later_token_or_noisy_state(position: int, stream: str) -> None:
    """The state of position i is the noisy embedding of token i + 1: one later than its own would be the answer."""
    network, generator = recurrent(condition_width=8), torch.Generator().manual_seed(2)
    noisy, condition = torch.randn(2, TOKENS, WIDTH, generator=generator), torch.randn(2, 8, generator=generator)
    text, other = TEXT.clone(), noisy.clone()
    if stream == "clean":
        text[:, position] = (text[:, position] + 1) % VOCABULARY
    else:
        other[:, position] += 1.0
    before, after = denoised(network, TEXT, noisy, condition), denoised(network, text, other, condition)
    same = (before == after).all(dim=-1).all(dim=0)
    assert torch.equal(same, torch.arange(TOKENS) < position)


def test_the_noise_level_reaches_the_core() -> None:
    """The denoiser would not know its noise level."""
    network = recurrent(condition_width=8)
    state = network.embed(TEXT, torch.randn(2, TOKENS, WIDTH, generator=torch.Generator().manual_seed(3)))
    conditions = torch.randn(2, 2, 8, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        first, second = (network.run(State(state.x, state.context), [0, 1], c) for c in conditions)
    assert not torch.allclose(first, second)


def test_the_largest_preset_has_the_published_parts() -> None:
    """It would be another model than the one it is named after: Huginn has about 1.5 B parameters in its recurrent core
    and as many in prelude and coda (Geiping et al., section 4)."""
    with torch.device("meta"):
        network = Recurrent.build("3.5b", InputShape(65536, "tokens", sequence_length=8), Recurrent.Options())
    core, around = (sum(p.numel() for m in parts for p in m.parameters()) for parts in (
        network.layers, [*network.prelude, *network.coda]
    ))  # fmt: skip
    assert core == pytest.approx(1.6e9, rel=0.05) and around == pytest.approx(1.6e9, rel=0.05)
    depth, *_, prelude, coda, times = SIZES["3.5b"]
    assert prelude + times * depth + coda == 132  # their unrolled depth
