"""Backprop as the reference, and checkpointing as the same training at another price."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from method_steps import built, plans_of, resolved, train, values
from torch.nn import functional as F

from dbbench.errors import BadInput
from dbbench.methods.base import Plan
from dbbench.methods.checkpointing import Checkpointing
from dbbench.methods.optimizers import OptimizerSettings
from dbbench.suite.cell import OptimizerChoice

POLICIES: list[dict[str, Any]] = [{"policy": "every_layer"}, {"policy": "sqrt"}, {"policy": "every_k", "k": 2}]


def gradients_of_a_step(method: str, **options: Any) -> dict[str, torch.Tensor]:
    """Return every gradient as the optimizer finds it at the first step."""
    trained, loop = built(method, depth=5, **options)
    found: dict[str, torch.Tensor] = {}

    def look(*_: Any) -> None:
        found.update({n: p.grad.clone() for n, p in trained.model.named_parameters() if p.grad is not None})

    trained.optimizers[0].register_step_pre_hook(look)
    loop.step(Plan(0, 0, 0, 0.5, 0.5))
    return found


@pytest.mark.parametrize("options", POLICIES, ids=lambda o: o["policy"])
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_checkpointing_has_backprops_gradients(options: dict[str, Any], dropout: float) -> None:
    """It would be another method. With dropout the recomputation must draw the same mask again."""
    reference = gradients_of_a_step("backprop", dropout=dropout)
    found = gradients_of_a_step("checkpointing", dropout=dropout, **options)
    assert found.keys() == reference.keys()
    assert all(torch.equal(found[name], reference[name]) for name in reference)


@pytest.mark.parametrize("options", POLICIES, ids=lambda o: o["policy"])
def test_checkpointing_has_backprops_loss_curve(options: dict[str, Any]) -> None:
    """The two rows of the table would not be the same training."""
    losses = {}
    for method, given in (("backprop", {}), ("checkpointing", options)):
        trained, loop = built(method, depth=5, **given)
        losses[method] = train(loop, plans_of(trained, loop, 12))
    assert losses["checkpointing"] == pytest.approx(losses["backprop"], rel=1e-6)
    assert losses["backprop"][-1] < losses["backprop"][0]


@pytest.mark.parametrize(("depth", "options", "calls"), [
    (5, {"policy": "every_layer"}, [1] * 5),
    (5, {"policy": "sqrt"}, [3, 2]),
    (9, {"policy": "sqrt"}, [3, 3, 3]),
    (5, {"policy": "every_k", "k": 4}, [4, 1]),
])  # fmt: skip
def test_segments_have_the_length_that_the_policy_says(
    depth: int, options: dict[str, Any], calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A policy would be another one: the √L of Chen et al. would have another exponent."""
    method, loop = built("checkpointing", depth=depth, **options)
    assert isinstance(method, Checkpointing)
    lengths: list[int] = []
    run = method.network.run

    def counting(state: Any, indices: Any, condition: Any = None) -> torch.Tensor:
        lengths.append(len(indices))
        return run(state, indices, condition)

    monkeypatch.setattr(method.network, "run", counting)
    with torch.no_grad():
        method.logits(loop.task.train_batch(0).inputs)
    assert lengths == calls


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"policy": "every_k"}, "k: goes with policy 'every_k', and only with it"),
        ({"policy": "sqrt", "k": 2}, "k: goes with policy 'every_k', and only with it"),
        ({"policy": "every_k", "k": 4}, "k: 4 is more than the network's 3 layers"),
        ({"policy": "every_layers"}, "policy: must be 'every_layer', 'sqrt' or 'every_k', not 'every_layers'"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    """A typo in a suite would train under another policy."""
    with pytest.raises(BadInput) as refusal:
        resolved("checkpointing", **options)
    assert message in str(refusal.value)


def test_a_step_of_backprop_is_the_plain_pytorch_step() -> None:
    """Every comparison is against this method: it must be what a user would write, to the last bit."""
    choice = OptimizerChoice(lr=3e-3, schedule="constant", warmup=0.0, weight_decay=0.1)
    method, loop = built("backprop", optimizer=choice)
    twin, _ = built("backprop", optimizer=choice)
    net = twin.network
    decayed = [p for p in net.parameters() if p.dim() >= 2]
    rest = [p for p in net.parameters() if p.dim() < 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=3e-3, betas=(0.9, 0.999), fused=True)
    for index in range(6):
        batch = loop.task.train_batch(index)
        loss = F.cross_entropy(net(batch.inputs), batch.targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        report = loop.step(Plan(index, 0, index, index / 6, index / 6))
        assert float(report) == pytest.approx(loss.item(), rel=1e-6)
    mine, theirs = values(method), dict(net.named_parameters())
    assert all(torch.allclose(mine[name], theirs[name], atol=1e-6) for name in mine)


@pytest.mark.parametrize("implementation", ["fused", "foreach", "single"])
def test_the_optimizers_implementation_changes_memory_and_no_result(implementation: str) -> None:
    """The pinned implementation would be part of what is learnt."""
    method, loop = built("backprop", optimizer=OptimizerChoice(implementation=implementation))
    twin, twin_loop = built("backprop")
    losses = [train(a_loop, plans_of(a, a_loop, 5)) for a, a_loop in ((method, loop), (twin, twin_loop))]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert method.optimizers[0].defaults["fused"] is (implementation == "fused")


def settings(**changes: Any) -> OptimizerSettings:
    """Return the suite's defaults with changes."""
    return OptimizerSettings(**OptimizerChoice(**changes).model_dump(exclude={"name"}))


def test_the_rate_warms_up_and_follows_a_cosine_as_torch_has_it() -> None:
    """A method's learning rate would not follow the course that the suite gives to all."""
    chosen = settings(lr=0.01, warmup=0.1, final_fraction=0.2)
    assert chosen.rate(0.05) == pytest.approx(0.005)
    assert chosen.rate(0.1) == pytest.approx(0.01)
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.01)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=90, eta_min=0.002)
    for step in range(90):
        assert chosen.rate(0.1 + step / 100) == pytest.approx(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert chosen.rate(1.0) == pytest.approx(0.002)


def test_the_rate_is_never_zero_while_there_is_budget() -> None:
    """A first step at rate zero would be a step lost to one method and not to another."""
    for chosen in (settings(), settings(schedule="constant"), settings(warmup=0.0), settings(warmup=1.0)):
        assert all(0 < chosen.rate(step / 400) <= chosen.lr for step in range(400))


def test_only_matrices_are_decayed() -> None:
    """Norms and biases would shrink, which no recipe for transformers does."""
    method, _ = built("backprop", optimizer=OptimizerChoice(weight_decay=0.3))
    for group in method.optimizers[0].param_groups:
        assert {p.dim() >= 2 for p in group["params"]} == {group["weight_decay"] == 0.3}
    held = sum(len(group["params"]) for group in method.optimizers[0].param_groups)
    assert held == len(list(method.model.parameters()))
