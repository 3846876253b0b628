"""A body that marks no step and takes several: told apart where that is safe, and said where it is not."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn

import dbbench

ROWS, WIDTH = 64, 32


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def made() -> tuple[nn.Module, torch.optim.Optimizer, Tensor]:
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, 1))
    return model, torch.optim.AdamW(model.parameters()), torch.randn(ROWS, WIDTH)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor) -> None:
    model(x).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def ledgers(steps: int, keep: bool = False) -> tuple[dbbench.Ledger, dbbench.Ledger]:
    """The same steps, unmarked and marked; each may keep a graph."""
    found = []
    for marked in (False, True):
        model, optimizer, x = made()
        kept: list[Tensor] = []
        with dbbench.Ledger(model, optimizer, inputs=x) as ledger:
            for _ in range(steps):
                with ledger.step() if marked else nullcontext():
                    if keep:
                        kept.append(model(x).square().mean())
                    train(model, optimizer, x)
        found.append(ledger)
    return found[0], found[1]


def test_three_steps_in_one_body_are_three_steps() -> None:
    """FLOPs of three steps are called one's, and there is one peak of three."""
    unmarked, marked = ledgers(3)
    mine, theirs = unmarked.profile(), marked.profile()
    assert [step.flops for step in mine.steps] == [step.flops for step in theirs.steps]
    assert len(mine.steps) == 3
    assert mine.peak_bytes == theirs.peak_bytes
    assert mine.split == theirs.split
    assert any("holds 3 optimizer steps" in note for note in mine.notes)
    assert not any("optimizer steps" in note for note in theirs.notes)


def test_one_step_is_one_step_and_nothing_is_said() -> None:
    model, optimizer, x = made()
    with dbbench.Ledger(model, optimizer, inputs=x) as ledger:
        for part in x.chunk(4):  # accumulation
            model(part).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            model(x)  # a validation behind it is part of it
    assert len(ledger.profile().steps) == 1
    assert ledger.several_steps == ""


def test_a_graph_that_each_step_keeps_is_retained_and_no_activation() -> None:
    """A leak that grows with every step hides among the activations."""
    unmarked, marked = ledgers(4, keep=True)
    assert unmarked.account().own_peaks["retained"] == marked.account().own_peaks["retained"] > 0
    assert unmarked.account().own_peaks["activations"] == marked.account().own_peaks["activations"]
    assert unmarked.kept_bytes == marked.kept_bytes > 0


def test_optimizers_that_take_turns_are_one_step_a_round() -> None:
    """A generator's graph, kept while the discriminator trains, is called a leak."""
    found = []
    for marked in (False, True):
        one, two = made(), made()
        with dbbench.Ledger([one[0], two[0]], [one[1], two[1]]) as ledger:
            for _ in range(3):
                with ledger.step() if marked else nullcontext():
                    fake = one[0](one[2])
                    two[0](fake.detach().expand(ROWS, WIDTH)).mean().backward()
                    two[1].step()
                    two[1].zero_grad()
                    two[0](fake.expand(ROWS, WIDTH)).mean().backward()
                    one[1].step()
                    one[1].zero_grad()
                    two[1].zero_grad()
        found.append(ledger)
    assert len(found[0].profile().steps) == 3
    assert found[0].account().own_peaks == found[1].account().own_peaks


def test_a_loop_that_is_differentiated_as_a_whole_is_one_step_and_it_is_said() -> None:
    """What an outer backward needs of an inner step is called a leak."""
    model, optimizer, x = made()
    outer = nn.Linear(WIDTH, WIDTH)
    with dbbench.Ledger({"inner": model, "outer": outer}, optimizer, inputs=x) as ledger:
        hidden, losses = outer(x), []
        for _ in range(3):
            losses.append(hidden.square().mean())
            hidden = torch.tanh(hidden)
            model(hidden.detach()).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        torch.stack(losses).sum().backward()
    assert len(ledger.profile().steps) == 1
    assert "a backward reaches over several" in ledger.several_steps
    assert ledger.account().own_peaks["retained"] < 2 * ROWS * WIDTH * 4  # of three steps


def test_optimizers_without_turns_are_told() -> None:
    one, two = made(), made()
    with dbbench.Ledger([one[0], two[0]], [one[1], two[1]]) as ledger:
        for critic_steps in (3, 1):
            for _ in range(critic_steps):
                train(*two)
            train(*one)
    assert len(ledger.profile().steps) == 1
    assert "take no turns" in ledger.several_steps


def test_an_optimizer_for_each_parameter_that_steps_in_the_backward_is_one() -> None:
    """Updates fused into the backward are as many steps as there are parameters."""
    model, _, x = made()
    for parameter in model.parameters():
        own = torch.optim.SGD([parameter], lr=0.1)

        def update(p: Tensor, own: torch.optim.Optimizer = own) -> None:
            own.step()
            own.zero_grad()

        parameter.register_post_accumulate_grad_hook(update)
    with dbbench.Ledger(model, inputs=x) as ledger:
        for _ in range(3):
            model(x).square().mean().backward()
    assert len(ledger.profile().steps) == 3
