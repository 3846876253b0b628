"""Greedy layer-wise training: one stage learns, what is before it stands still and keeps nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from method_steps import built, plans_of, resolved, train, values

from dbbench.errors import BadInput
from dbbench.methods.base import Plan
from dbbench.methods.greedy import Greedy


def make(**changes: Any) -> tuple[Greedy, Any]:
    """Return a greedy method ready for its first step, and its loop."""
    method, loop = built("greedy", **changes)
    assert isinstance(method, Greedy)
    return method, loop


def stage_of(method: Greedy, name: str) -> int:
    """Return the stage that a parameter belongs to by its name alone."""
    parts = name.split(".")
    if parts[0] == "heads":
        return int(parts[1])
    if parts[1] == "head":
        return method.blocks - 1
    return int(parts[2]) // method.layers_per_block[0] if parts[1] == "layers" else 0


@pytest.mark.parametrize("layers_per_stage", [1, 2])
def test_only_the_stage_in_training_changes(layers_per_stage: int) -> None:
    """Earlier stages would go on learning, which is no longer greedy; later ones would not start as drawn."""
    method, loop = make(depth=4, layers_per_stage=layers_per_stage)
    for plan in plans_of(method, loop, 8):
        before = values(method)
        loop.step(plan)
        after = values(method)
        changed = {stage_of(method, name) for name in after if not after[name].equal(before[name])}
        assert changed == {plan.block}


def test_only_the_stage_in_training_holds_gradients_and_optimizer_state() -> None:
    """Memory that the method is praised for would be there after all."""
    method, loop = make(depth=3)
    graded: set[int] = set()
    names = {id(p): name for name, p in method.model.named_parameters()}
    for plan in plans_of(method, loop, 6):
        for p in method.model.parameters():
            if plan.block_step == 0 and p.requires_grad:
                p.register_post_accumulate_grad_hook(lambda p: graded.add(stage_of(method, names[id(p)])))
        graded.clear()
        loop.step(plan)
        (optimizer,) = method.optimizers
        held = {stage_of(method, names[id(p)]) for p in optimizer.state}
        assert held == {plan.block}
        assert graded <= {plan.block}
        trained = {names[id(p)] for p in method.model.parameters() if p.requires_grad}
        assert trained == method.may_change(plan)
        assert all(p.grad is None for p in method.model.parameters())


def test_no_graph_reaches_through_the_stages_before() -> None:
    """Activations of frozen stages would be kept for a backward that never comes."""
    method, loop = make(depth=3)
    with_graph: dict[int, bool] = {}
    for index, layer in enumerate(method.network.layers):
        layer.register_forward_hook(
            lambda module, args, out, index=index: with_graph.__setitem__(index, out.requires_grad)
        )
    for stage in range(3):
        loop.step(Plan(stage, stage, 0, 0.5, (stage + 0.5) / 3))
        assert with_graph == {index: index == stage for index in range(stage + 1)}


def test_the_first_stage_trains_the_embedding_and_the_last_the_networks_own_head() -> None:
    """Something would never be trained, or by two stages."""
    method, _ = make(depth=3)
    plans = [Plan(stage, stage, 0, 0.0, stage / 3) for stage in range(3)]
    trained = [method.may_change(plan) for plan in plans]
    assert "network.positions" in trained[0]
    assert "network.head.linear.weight" in trained[2]
    assert set.union(*trained) == {name for name, _ in method.model.named_parameters()}
    assert sum(len(names) for names in trained) == len(set.union(*trained))


def test_predictions_are_by_the_last_trained_head_or_the_mean_of_all() -> None:
    """The option would switch nothing, or the mean would be of something else than probabilities."""
    for ensemble in (False, True):
        method, loop = make(depth=3, ensemble=ensemble)
        train(loop, plans_of(method, loop, 6))
        with torch.no_grad():
            ways = method.predict(loop.task.train_batch(0).inputs)
        heads = torch.stack([ways[f"head_{stage}"].exp() for stage in range(3)])
        assert torch.allclose(ways["ensemble"].exp(), heads.mean(0), atol=1e-6)
        assert torch.allclose(ways["ensemble"].exp().sum(1), torch.ones(16), atol=1e-5)
        assert ways[""].equal(ways["ensemble" if ensemble else "head_2"])


def test_a_stage_that_has_not_begun_predicts_nothing() -> None:
    """The curve would show an untrained head while the first stage learns."""
    method, loop = make(depth=3)
    loop.step(Plan(0, 0, 0, 0.0, 0.0))
    with torch.no_grad():
        ways = method.predict(loop.task.train_batch(0).inputs)
    assert set(ways) == {"", "ensemble", "head_0"}
    assert ways[""].equal(ways["head_0"])


def test_a_saved_stage_goes_on_bitwise() -> None:
    """An interrupted run would start its stage with fresh moments."""
    (whole, loop), (saver, saver_loop), (loader, loader_loop) = make(), make(), make()
    plans = plans_of(whole, loop, 9)
    train(loop, plans)
    train(saver_loop, plans[:5])  # in the middle of the second stage
    loader.load(saver.state())
    train(loader_loop, plans[5:])
    expected, reached = values(whole), values(loader)
    assert all(expected[name].equal(reached[name]) for name in expected)
    inputs = loop.task.train_batch(0).inputs
    with torch.no_grad():
        assert whole.predict(inputs)[""].equal(loader.predict(inputs)[""])


def test_a_stage_longer_than_the_network_is_refused() -> None:
    """The method would be backprop under another name."""
    with pytest.raises(BadInput, match="layers_per_stage: 4 is more than the network's 3 layers"):
        resolved("greedy", layers_per_stage=4)
    assert make(depth=5, layers_per_stage=2)[0].layers_per_block == [2, 2, 1]
