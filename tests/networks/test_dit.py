"""The diffusion transformer: its size is the published one, its patches go back where they came from."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dbbench.errors import BadInput
from dbbench.networks.base import InputShape, initialise
from dbbench.networks.dit import SIZES, DiT, LatentHead
from dbbench.streams import Streams

LATENTS = InputShape(5, "latents", channels=3, image_size=8)
INPUTS = {
    "noisy": torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)),
    "c_noise": torch.tensor([-0.3, 0.2]),
    "label": torch.tensor([1, 5]),
}


def dit(**options: object) -> DiT:
    network = DiT.build("micro/2", LATENTS, DiT.Options(**options))
    initialise(network, Streams(0))
    return network.eval()


@pytest.mark.parametrize(("size", "published"), [("S/2", 33e6), ("B/2", 130e6), ("L/2", 458e6), ("XL/2", 675e6)])
def test_every_preset_has_the_published_number_of_parameters(size: str, published: float) -> None:
    """Peebles & Xie's table 1, rounded there to a million; and the sum of the parts, to the last one."""
    depth, width, _, mlp_width, patch = SIZES[size]
    with torch.device("meta"):
        network = DiT.build(size, InputShape(1000, "latents", channels=4, image_size=32), DiT.Options())
    count = sum(p.numel() for p in network.parameters())
    assert count == pytest.approx(published, rel=0.01)
    layer = 4 * width * (width + 1) + 2 * width * mlp_width + mlp_width + width + 6 * width * (width + 1)
    patches, noise, labels = (4 * patch**2 + 1) * width, (128 + 1) * width + width * (width + 1), 1001 * width
    head = 2 * width * (width + 1) + (width + 1) * 4 * patch**2
    assert count == depth * layer + patches + noise + labels + head


def test_it_starts_by_giving_zero_and_patches_return_to_their_places() -> None:
    """adaLN-Zero would not start from nothing; or the image would come out with its patches mixed up."""
    network = dit()
    assert torch.equal(network(INPUTS), torch.zeros(2, 3, 8, 8))
    # with identities for what is learnt, a token's features are its patch, and the head must undo the embedding's cut
    head = LatentHead(12, channels=3, patch=2, rows=4)
    initialise(head, Streams(0))
    head.norm = head.linear = nn.Identity()
    network.patches.linear = nn.Identity()
    network.patches.linear.weight = torch.zeros(())  # its type is asked
    assert torch.equal(head(network.patches(INPUTS["noisy"]), torch.zeros(2, 12)), INPUTS["noisy"])


def test_noise_level_label_and_position_all_matter() -> None:
    """A condition would not reach the layers, or every patch would look the same."""
    network = dit(gate_start=1)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
        plain = network(INPUTS)
        for key, value in (("c_noise", torch.zeros(2)), ("label", torch.tensor([2, 3]))):
            assert not torch.allclose(network(INPUTS | {key: value}), plain)
        shifted = network(INPUTS | {"noisy": INPUTS["noisy"].roll(2, dims=2)})
        assert not torch.allclose(shifted, plain.roll(2, dims=2), atol=1e-4)


def test_what_it_cannot_take_is_refused_by_name() -> None:
    """The user would see a torch error about shapes."""
    with pytest.raises(BadInput, match=r"network.name: 'dit' takes latents, and this task has images"):
        DiT.build("S/2", InputShape(3, channels=3, image_size=8), DiT.Options())
    with pytest.raises(BadInput, match=r"network.patch: 3 does not divide the latents' size 8"):
        DiT.build("micro/2", LATENTS, DiT.Options(patch=3))
    with pytest.raises(BadInput, match=r"network.width: 100 is no multiple of 64, the width of a head of 'S/2'"):
        DiT.build("S/2", LATENTS, DiT.Options(width=100))


def test_a_wider_network_keeps_the_heads_width_and_the_mlps_ratio() -> None:
    """Scaling by width would change two things at once."""
    assert DiT.numbers("S/2", DiT.Options(width=768), depth=7) == {
        "depth": 7, "width": 768, "heads": 12, "mlp_width": 3072, "patch": 2, "dropout": 0.0, "gate_start": 0,
    }  # fmt: skip
