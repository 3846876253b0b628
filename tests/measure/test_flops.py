"""FLOPs by phase against counts made by hand from the network's shapes."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from dbbench.measure.flops import FlopCount
from dbbench.measure.ledger import BareLedger as Ledger
from dbbench.networks.base import InputShape
from dbbench.networks.vit import ViT


def test_forward_and_backward_of_linear_maps_are_the_textbook_counts() -> None:
    """A phase would get another's FLOPs: forward is 2·N·in·out, backward twice that (once without an input's)."""
    batch, width = 8, 16
    net = nn.Sequential(nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width))
    with Ledger() as ledger, ledger.step(0):
        net(torch.randn(batch, width)).sum().backward()
    one = 2 * batch * width * 4 * width
    assert dict(ledger.flops[0][1]) == {"forward": 2 * one, "backward": 3 * one}
    assert not ledger.uncounted


def test_recompute_costs_one_more_forward_without_its_last_map() -> None:
    """Checkpointing's price would be hidden. Early stop spares what nothing needs again."""
    batch, width = 8, 16
    net = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, width))
    x = torch.randn(batch, width, requires_grad=True)
    with Ledger() as ledger, ledger.step(0):
        torch.utils.checkpoint.checkpoint(net, x, use_reentrant=False).sum().backward()
    one = 2 * batch * width * width
    assert dict(ledger.flops[0][1]) == {"forward": 2 * one, "backward": 4 * one, "recompute": one}


def test_cpu_attention_counts_where_torchs_counter_says_zero() -> None:
    """Attention on CPU has no formula in torch's registry."""
    batch, heads, tokens, width = 2, 3, 10, 8
    q, k, v = (torch.randn(batch, heads, tokens, width, requires_grad=True) for _ in range(3))
    with Ledger() as ledger, ledger.step(0):
        nn.functional.scaled_dot_product_attention(q, k, v).sum().backward()
    product = 2 * batch * heads * tokens * tokens * width
    # backward: two products for each of the forward's two, and the scores once more
    assert dict(ledger.flops[0][1]) == {"forward": 2 * product, "backward": 5 * product}
    with FlopCounterMode(display=False) as theirs:
        nn.functional.scaled_dot_product_attention(q, k, v)
    assert theirs.get_total_flops() in (0, 2 * product)


def test_a_vision_transformers_forward_is_the_sum_over_its_maps() -> None:
    """An op of the reference network would be missed."""
    net = ViT.build("tiny", InputShape(classes=10, channels=1, image_size=28), ViT.Options(), depth=3)
    batch, tokens, width, mlp = 4, 17, 64, 256
    with Ledger() as ledger, ledger.step(0), torch.no_grad():
        net(torch.randn(batch, 1, 28, 28))
    layer = 2 * batch * tokens * (4 * width * width + 2 * width * mlp) + 4 * batch * tokens * tokens * width
    embedding = 2 * batch * (tokens - 1) * 49 * width
    head = 2 * batch * width * 10
    assert sum(ledger.flops[0][1].values()) == 3 * layer + embedding + head


def test_an_op_without_a_formula_is_named() -> None:
    """Zero would be added in silence."""
    with Ledger() as ledger, ledger.step(0):
        torch.linalg.matrix_exp(torch.eye(4))
        torch.linalg.matrix_exp(torch.eye(4))
    assert ledger.uncounted == {"aten.linalg_matrix_exp": 2}


def test_products_are_counted_as_torchs_registry_counts_them() -> None:
    """Our own short formulas would drift from the field's."""
    a, b, c, d = torch.empty(3, 4), torch.empty(4, 5), torch.empty(2, 3, 4), torch.empty(2, 4, 5)
    calls = {
        "mm": (a, b), "addmm": (torch.empty(5), a, b), "bmm": (c, d), "baddbmm": (torch.empty(2, 3, 5), c, d),
    }  # fmt: skip
    for name, args in calls.items():
        packet = getattr(torch.ops.aten, name)
        out = packet(*args)
        ours = FlopCount().formula(packet.default)
        assert ours is not None
        assert ours(args, {}, out) == flop_registry[packet](*args, out_val=out), name
