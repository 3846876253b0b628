"""Networks: that they can be cut anywhere, start from named streams, and refuse what they cannot take."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dbbench.errors import BadInput
from dbbench.networks.base import InputShape, State, initialise, place
from dbbench.networks.linear import LinearClassifier
from dbbench.networks.parts import NoiseEmbedding
from dbbench.networks.vit import SIZES, ViT
from dbbench.streams import Streams

DIGITS = InputShape(classes=10, channels=1, image_size=8)
IMAGES = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def vit(depth: int = 4, condition_width: int | None = None, seed: int = 0, **options: object) -> ViT:
    """Return a small network, filled from ``seed``."""
    network = ViT.build("micro", DIGITS, ViT.Options(**options), depth, condition_width)
    initialise(network, Streams(seed))
    return network.eval()


def test_shapes_are_those_of_the_contract() -> None:
    """A method would get something else than tokens, features and logits."""
    network = vit()
    state = network.embed(IMAGES)
    assert state.x.shape == (3, 5, 32)  # (8/4)² patches and the read-out token
    assert network.run(state, network.schedule()).shape == state.x.shape
    assert network.read(state.x, state.context).shape == (3, 32)
    assert network(IMAGES).shape == (3, 10)
    assert network.depth == len(network.schedule()) == 4


@pytest.mark.parametrize("size", SIZES)
def test_every_preset_builds_with_the_numbers_of_its_row(size: str) -> None:
    """The table would say one thing and the network be another."""
    depth, width, heads, mlp_width, patch = SIZES[size]
    shape = InputShape(classes=7, channels=3, image_size=8 * patch)
    with torch.device("meta"):
        network = ViT.build(size, shape, ViT.Options())
    layer = network.layers[0]
    assert (network.depth, network.width, network.tokens) == (depth, width, 65)
    assert (layer.attention.heads, layer.mlp.up.out_features) == (heads, mlp_width)
    assert network.patches.linear.in_features == 3 * patch * patch
    per_layer = 4 * width + 4 * width * width + 4 * width + 2 * width * mlp_width + mlp_width + width
    outside = (3 * patch * patch + 1) * width + 65 * width + width + 2 * width + 7 * (width + 1)
    assert sum(p.numel() for p in network.parameters()) == depth * per_layer + outside


@given(st.lists(st.integers(0, 5), max_size=6))
@settings(max_examples=25, deadline=None)
def test_cut_anywhere_it_computes_the_same(cuts: list[int]) -> None:
    """A block would not be a run of layers: cutting would change the function."""
    network = vit(depth=5)
    borders = [0, *sorted(cuts), 5]
    with torch.no_grad():
        state = network.embed(IMAGES)
        for start, end in itertools.pairwise(borders):
            state = State(network.run(state, network.schedule()[start:end]), state.context)
        assert network.head(network.read(state.x, state.context)).equal(network(IMAGES))


def test_the_layer_is_pre_norm_attention_and_mlp_as_torch_has_them() -> None:
    """The network would not be the transformer that its docstring names."""
    network = vit(depth=1)
    layer = network.layers[0]
    twin = nn.TransformerEncoderLayer(
        32, 2, 128, dropout=0.0, activation=nn.GELU(approximate="tanh"), batch_first=True, norm_first=True
    )
    pairs = {
        "norm1": layer.norm1, "norm2": layer.norm2, "linear1": layer.mlp.up, "linear2": layer.mlp.down,
        "self_attn.out_proj": layer.attention.out,
    }  # fmt: skip
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for name, module in pairs.items():
            twin.get_submodule(name).load_state_dict(module.state_dict())
        twin.self_attn.in_proj_weight.copy_(layer.attention.qkv.weight)
        twin.self_attn.in_proj_bias.copy_(layer.attention.qkv.bias)
        x = torch.randn(2, 5, 32)
        assert torch.allclose(layer(x, {}), twin.train()(x), atol=1e-5)


def test_patches_are_cut_row_by_row() -> None:
    """A patch would hold pixels of another place."""
    network = vit()
    image = torch.arange(64.0).view(1, 1, 8, 8)
    with torch.no_grad():
        network.patches.linear.weight.copy_(torch.eye(32, 16))
        network.patches.linear.bias.zero_()
        patches = network.patches(image)[0, :, :16]
    assert patches[1].tolist() == [row * 8.0 + column for row in range(4) for column in range(4, 8)]
    assert patches[2][0] == 32.0


def test_a_target_takes_the_place_of_the_read_out_token() -> None:
    """The noisy label would not be where the prediction is read from."""
    network = vit(condition_width=16)
    target = torch.randn(3, 32)
    x = network.embed(IMAGES, target).x
    assert torch.allclose(x[:, 0], target + network.positions[0, 0])
    assert torch.allclose(x[:, 1:], vit().embed(IMAGES).x[:, 1:])
    with pytest.raises(ValueError, match="has no read-out token of its own"):
        network.embed(IMAGES)


def test_adaptive_norms_shift_no_other_weight() -> None:
    """A method with conditioning would start from other weights than the rest: initialisation goes by name."""
    plain, conditioned = (dict(vit(condition_width=width).named_parameters()) for width in (None, 16))
    assert set(plain) - set(conditioned) == {"class_token"}
    assert all(plain[name].equal(conditioned[name]) for name in set(plain) & set(conditioned))
    assert all("modulation" in name for name in set(conditioned) - set(plain))
    deeper = dict(vit(depth=6).named_parameters())
    assert all(plain[name].equal(deeper[name]) for name in plain)


def test_initialisation_follows_the_seed_and_the_documented_laws() -> None:
    """Two seeds would start alike, or weights would be of another scale than is said."""
    first, again, other = (dict(vit(seed=seed).named_parameters()) for seed in (0, 0, 1))
    assert all(first[name].equal(again[name]) for name in first)
    matrices = [name for name, p in first.items() if p.dim() >= 2]
    assert all(not first[name].equal(other[name]) for name in matrices)
    up = first["layers.0.mlp.up.weight"].detach()
    bound = (6 / (32 + 128)) ** 0.5
    assert 0.95 * bound < float(up.abs().max()) <= bound
    assert float(first["positions"].detach().std()) == pytest.approx(0.02, rel=0.3)
    assert first["layers.0.norm1.weight"].eq(1).all()
    assert first["layers.0.mlp.up.bias"].eq(0).all()


@pytest.mark.parametrize("gate_start", [0, 1])
def test_zero_modulation_is_the_plain_network_or_the_identity(gate_start: int) -> None:
    """The start of training would be another one than documented: gate 1 the plain layer, gate 0 none at all."""
    plain, conditioned = vit(), vit(condition_width=16, gate_start=gate_start)
    token, condition = torch.randn(3, 32), torch.randn(3, 16)
    with torch.no_grad():
        state = conditioned.embed(IMAGES, token)
        x = conditioned.run(state, conditioned.schedule(), condition)
        expected = plain.run(plain.embed(IMAGES, token), plain.schedule()) if gate_start else state.x
        assert torch.allclose(x, expected, atol=1e-6)
        features = torch.randn(3, 32)
        assert torch.allclose(conditioned.head(features, condition), plain.head(features), atol=1e-6)


def test_modulation_reaches_every_layer_and_the_head() -> None:
    """The noise level would not be known everywhere: each modulation's weights must get a gradient."""
    network = vit(condition_width=16)
    x = network.run(network.embed(IMAGES, torch.randn(3, 32)), network.schedule(), condition := torch.randn(3, 16))
    network.head(network.read(x, {}), condition).square().sum().backward()
    weights = [p for name, p in network.named_parameters() if "modulation" in name and name.endswith("weight")]
    assert len(weights) == 5
    for weight in weights:
        assert weight.grad is not None
        chunks = weight.grad.view(-1, 32, 16)  # shift, scale and gate: none may be idle
        assert all(float(chunk.abs().max()) > 0 for chunk in chunks)


def test_dropout_is_off_at_evaluation() -> None:
    """Predictions would be random."""
    network = vit(dropout=0.5)
    assert network(IMAGES).equal(network(IMAGES))
    network.train()
    assert not network(IMAGES).equal(network(IMAGES))


@pytest.mark.parametrize(
    ("shape", "patch", "message"),
    [
        (DIGITS, 3, "network.patch: 3 does not divide the image size 8"),
        (InputShape(5, "tokens", sequence_length=7), 4, "network.name: 'vit' takes images"),
    ],
)
def test_inputs_that_it_cannot_take_are_refused(shape: InputShape, patch: int, message: str) -> None:
    """The user would see a torch error about a view."""
    with pytest.raises(BadInput, match=message):
        ViT.build("micro", shape, ViT.Options(patch=patch))


def test_the_linear_row_is_multinomial_logistic_regression() -> None:
    """The row that others must beat would be something else."""
    network = LinearClassifier.build("tiny", DIGITS, LinearClassifier.Options())
    initialise(network, Streams(0))
    weight, bias = network.head.parameters()
    assert torch.allclose(network(IMAGES), IMAGES.flatten(1) @ weight.T + bias, atol=1e-6)
    assert sum(p.numel() for p in network.parameters()) == 64 * 10 + 10
    with pytest.raises(BadInput, match="has no layers"):
        LinearClassifier.build("tiny", DIGITS, LinearClassifier.Options(), depth=3)
    with pytest.raises(BadInput, match="takes images"):
        LinearClassifier.build("tiny", InputShape(2, "tokens", sequence_length=4), LinearClassifier.Options())


def test_noise_levels_get_embeddings_that_can_be_told_apart() -> None:
    """Blocks would be conditioned on a constant."""
    embedding = NoiseEmbedding(16)
    initialise(embedding, Streams(0))
    levels = torch.linspace(-1.6, 1.1, 12)
    out: Tensor = embedding(levels)
    assert out.shape == (12, 16)
    apart = torch.cdist(out, out) + torch.eye(12) * 1e9
    assert float(apart.detach().min()) > 1e-2


def test_placing_keeps_what_a_parameter_is() -> None:
    """An optimizer made before would train a copy; integers must stay integers."""
    module = nn.BatchNorm1d(3)
    before = dict(module.named_parameters())
    place(module, "cpu", torch.bfloat16)
    assert all(p is before[name] for name, p in module.named_parameters())
    assert {p.dtype for p in module.parameters()} == {torch.bfloat16}
    assert module.num_batches_tracked is not None and module.num_batches_tracked.dtype == torch.int64
    with torch.device("meta"):
        shell = nn.Linear(2, 2)
    place(shell, "cpu", torch.bfloat16)
    assert shell.weight.is_meta and shell.weight.dtype == torch.bfloat16
