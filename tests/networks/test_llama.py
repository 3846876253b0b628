"""The decoder: transformers' Llama with the same weights gives the same logits; and what each position may see."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dbbench.networks.base import InputShape, initialise
from dbbench.networks.llama import SIZES, Llama, rotate
from dbbench.streams import Streams

VOCABULARY, TOKENS, WIDTH = 11, 6, 32
SHAPE = InputShape(VOCABULARY, "tokens", sequence_length=TOKENS)
TEXT = torch.randint(VOCABULARY, (2, TOKENS), generator=torch.Generator().manual_seed(0))


def llama(condition_width: int | None = None, **options: object) -> Llama:
    network = Llama.build("micro", SHAPE, Llama.Options(**options), depth=2, condition_width=condition_width)
    initialise(network, Streams(0))
    return network.eval()


@pytest.mark.parametrize(
    ("size", "vocabulary", "published"),
    [("124m", 50257, 124e6), ("1.3b", 32000, 1.345e9), ("7b", 32000, 6_738_415_616)],
)
def test_every_preset_has_the_number_of_parameters_of_its_source(size: str, vocabulary: int, published: float) -> None:
    """A preset would be another model than the one it is named after; the largest is compared to the last parameter."""
    depth, width, _, mlp_width, tied = SIZES[size]
    with torch.device("meta"):
        network = Llama.build(size, InputShape(vocabulary, "tokens", sequence_length=8), Llama.Options())
    count = sum(p.numel() for p in network.parameters())
    assert count == pytest.approx(published, rel=0 if size == "7b" else 0.01)
    layer = 4 * width * width + 3 * width * mlp_width + 2 * width
    assert count == depth * layer + width + vocabulary * width * (1 if tied else 2)


def test_it_is_the_decoder_that_transformers_has() -> None:
    """Rotary positions, norms, gates or the order of things would be another model's."""
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2,
        rms_norm_eps=1e-5, tie_word_embeddings=False, max_position_embeddings=64,
    )  # fmt: skip
    twin, network = transformers.LlamaForCausalLM(config).eval(), llama()
    names = {
        "embedding": "model.embed_tokens", "head.norm": "model.norm", "head.linear": "lm_head",
        "norm1": "input_layernorm", "norm2": "post_attention_layernorm",
        "attention.q": "self_attn.q_proj", "attention.k": "self_attn.k_proj", "attention.v": "self_attn.v_proj",
        "attention.out": "self_attn.o_proj", "mlp.gate": "mlp.gate_proj", "mlp.up": "mlp.up_proj",
        "mlp.down": "mlp.down_proj",
    }  # fmt: skip
    weights = {}
    for name, parameter in network.named_parameters():
        module = name.removesuffix(".weight")
        prefix, _, rest = module.partition(".") if module.startswith("layers.") else ("", "", module)
        if prefix:
            index, _, rest = rest.partition(".")
            weights[f"model.layers.{index}.{names[rest]}.weight"] = parameter.detach()
        else:
            weights[f"{names[rest]}.weight"] = parameter.detach()
    twin.load_state_dict(weights, strict=True)
    with torch.no_grad():
        assert torch.allclose(network(TEXT), twin(input_ids=TEXT).logits, atol=1e-5)


def test_rotary_positions_are_a_multiplication_of_complex_numbers() -> None:
    """Scores would not depend on the distance of two positions alone (Su et al. 2021, section 3.2)."""
    generator = torch.Generator().manual_seed(0)
    x, angles = torch.randn(2, 5, 3, 8, generator=generator), torch.rand(5, 1, 4, generator=generator)
    turned = torch.complex(*x.chunk(2, dim=-1)) * torch.polar(torch.ones_like(angles), angles)
    assert torch.allclose(
        rotate(x, angles.cos(), angles.sin()), torch.cat([turned.real, turned.imag], dim=-1), atol=1e-6
    )


@given(position=st.integers(1, TOKENS - 1), token=st.integers(0, VOCABULARY - 1))
@settings(max_examples=20, deadline=None)
def test_no_logit_depends_on_a_later_token(position: int, token: int) -> None:
    """The model would read what it is to predict: perturb one token, and everything before is bit for bit as it was."""
    network, changed = llama(), TEXT.clone()
    changed[:, position] = token
    with torch.no_grad():
        assert torch.equal(network(TEXT)[:, :position], network(changed)[:, :position])


def noisy_logits(network: Llama, text: Tensor, noisy: Tensor, condition: Tensor) -> Tensor:
    state = network.embed(text, noisy)
    with torch.no_grad():
        return network.head(network.read(network.run(state, [0, 1], condition), state.context), condition)


@given(position=st.integers(0, TOKENS - 1), stream=st.sampled_from(["clean", "noisy"]))
@settings(max_examples=20, deadline=None)
def test_a_noisy_position_sees_its_clean_past_and_itself(position: int, stream: str) -> None:
    """The noisy stream would leak neighbours, or tokens that are to be predicted, into a prediction."""
    network, generator = llama(condition_width=8), torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in network.parameters():  # modulation starts at zero
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    noisy, condition = torch.randn(2, TOKENS, WIDTH, generator=generator), torch.randn(2, 8, generator=generator)
    plain = noisy_logits(network, TEXT, noisy, condition)
    if stream == "clean":
        text = TEXT.clone()
        text[:, position] = (text[:, position] + 1) % VOCABULARY
        after = noisy_logits(network, text, noisy, condition)
        may_differ = torch.arange(TOKENS) >= position
    else:
        changed = noisy.clone()
        changed[:, position] += 1.0
        after = noisy_logits(network, TEXT, changed, condition)
        may_differ = torch.arange(TOKENS) == position
    same = (plain == after).all(dim=-1).all(dim=0)
    assert torch.equal(same, ~may_differ)


def test_a_clean_stream_beside_a_noisy_one_is_the_plain_decoder() -> None:
    """The condition on the past would be another text than the one that is given."""
    network = llama()
    state = network.embed(TEXT, torch.randn(2, TOKENS, WIDTH, generator=torch.Generator().manual_seed(3)))
    both = network.run(state, [0, 1])
    alone = network.run(network.embed(TEXT), [0, 1])
    assert torch.allclose(both[:, :TOKENS], alone, atol=1e-5)
    assert network.read(both, state.context).shape == alone.shape


def test_a_tied_head_has_no_weights_of_its_own() -> None:
    """The smallest preset would count its table twice."""
    network = llama(tied=True)
    assert network.head.linear.weight is network.embedding.weight
    assert network.make_head().linear.weight is not network.embedding.weight
