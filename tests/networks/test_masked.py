"""The bidirectional denoiser: what a position sees, what it is told, and what it may answer."""

from __future__ import annotations

import pytest
import torch
from stirred import stirred
from torch import Tensor

from dbbench.errors import BadInput
from dbbench.networks.base import InputShape, State
from dbbench.networks.masked import SIZES, Masked

VOCABULARY, TOKENS, WIDTH = 11, 6, 32
SHAPE = InputShape(VOCABULARY, "masked_tokens", sequence_length=TOKENS)
TEXT = torch.randint(VOCABULARY + 1, (2, TOKENS), generator=torch.Generator().manual_seed(0))
HALF = torch.full((2,), 0.5)


def masked() -> Masked:
    """Return the smallest network, its modulation no longer at zero."""
    return stirred(Masked.build("micro", SHAPE, Masked.Options(), depth=2))


def logits(network: Masked, tokens: Tensor, t: Tensor = HALF) -> Tensor:
    with torch.no_grad():
        return network({"tokens": tokens, "t": t})


@pytest.mark.parametrize("position", [0, TOKENS - 1])
def test_every_position_sees_every_other(position: int) -> None:
    """A mask of the decoder's would be left, and a token be predicted from its past alone."""
    changed = TEXT.clone()
    changed[:, position] = (TEXT[:, position] + 1) % VOCABULARY
    before, after = logits(masked(), TEXT), logits(masked(), changed)
    assert (before != after).any(dim=-1).all()


def test_no_causal_mask_is_a_mask_that_hides_nothing() -> None:
    """Attention would be another than that of every position to every other."""
    network = masked()
    state = network.embed({"tokens": TEXT, "t": HALF})
    context = {key: value for key, value in state.context.items() if key != "causal"}
    context["mask"] = torch.zeros(TOKENS, TOKENS)
    with torch.no_grad():
        assert torch.allclose(network.run(state, [0, 1]), network.run(State(state.x, context), [0, 1]), atol=1e-5)


def test_the_time_reaches_layers_and_head() -> None:
    """A block would not know its noise level."""
    network, late = masked(), torch.full((2,), 0.9)
    assert not torch.allclose(logits(network, TEXT), logits(network, TEXT, late))
    early, later = (network.embed({"tokens": TEXT, "t": t}) for t in (HALF, late))
    with torch.no_grad():
        assert torch.equal(early.x, later.x)
        assert not torch.allclose(network.run(early, [0]), network.run(later, [0]))
        assert not torch.allclose(network.outputs(early.x, early.context), network.outputs(early.x, later.context))


def test_the_mask_can_be_read_and_never_be_answered() -> None:
    """Probability would be lost on what no text contains."""
    assert masked().embedding.weight.shape == (VOCABULARY + 1, WIDTH)
    assert logits(masked(), TEXT).shape == (2, TOKENS, VOCABULARY)


def test_the_published_size_is_that_of_its_parts() -> None:
    """The preset would be another model than MD4's on text8: 12 layers, 12 heads of 64."""
    depth, width, heads, mlp_width = SIZES["text8"]
    assert (depth, heads, width // heads) == (12, 12, 64)
    with torch.device("meta"):
        network = Masked.build("text8", InputShape(28, "masked_tokens", sequence_length=256), Masked.Options())
    layer = 4 * width * width + 3 * width * mlp_width + 2 * width + 6 * (width * width + width)
    outside = 29 * width + (128 * width + width) + (width * width + width)
    head = width + 28 * width + 2 * (width * width + width)
    assert sum(p.numel() for p in network.parameters()) == depth * layer + outside + head


@pytest.mark.parametrize("kind", ["tokens", "latents"])
def test_other_inputs_are_refused_in_words(kind: str) -> None:
    """A suite with the wrong task would end in a traceback."""
    with pytest.raises(BadInput, match=f"'masked' takes masked tokens, and this task has {kind}"):
        Masked.build("micro", InputShape(5, kind, sequence_length=4), Masked.Options())
