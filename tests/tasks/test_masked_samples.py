"""Samples of masked diffusion: masks filled in as MD4 and a fixed seed say, the same way for every method."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_cells import make_cell
from torch import Tensor

from dbbench.harness.cell import run_cell
from dbbench.results.record import Samples
from dbbench.streams import Streams
from dbbench.suite.cell import Budget, NetworkChoice, TaskChoice
from dbbench.tasks.masked_text import MaskedTextFolder
from dbbench.tasks.sampling import unmasked
from dbbench.tasks.text import TextFolder

MASK = 3
UNIGRAM = torch.tensor([0.6, 0.3, 0.1])
CHAIN = torch.tensor([[0.1, 0.6, 0.3], [0.2, 0.2, 0.6], [0.7, 0.2, 0.1]])
Inputs = Mapping[str, Tensor]


def seed(number: int = 0) -> torch.Generator:
    return Streams(number).generator("samples")


def unigram(inputs: Inputs) -> Tensor:
    return UNIGRAM.log().expand(*inputs["tokens"].shape, 3)


def chain(inputs: Inputs) -> Tensor:
    """Return what a Markov chain says of the second and third of three tokens, the first given, for each state of the
    other: p(b | a, c) = M[a, b] M[b, c] / M²[a, c]."""
    a, b, c = inputs["tokens"].T
    first = torch.cat([CHAIN.log(), torch.zeros(1, 3)])[a]
    behind = torch.cat([CHAIN.T.log(), torch.zeros(1, 3)])[c]  # nothing is known of a mask
    second = (first + behind).log_softmax(dim=-1)
    third = torch.where((b == MASK)[:, None], (CHAIN @ CHAIN).log()[a], CHAIN.log()[b.clamp(max=2)])
    return torch.stack([first, second, third], dim=1)


def spread_of(text: Tensor, classes: int) -> Tensor:
    return torch.bincount(text.flatten(), minlength=classes).double() / text.numel()


@pytest.mark.parametrize("steps", [1, 3, 20, 64])
def test_draws_follow_a_known_distribution_whatever_the_steps(steps: int) -> None:
    """Temperature 1 would be another temperature: 8,000 tokens of a unigram, within four standard errors of it."""
    prompts = torch.zeros(400, 4, dtype=torch.int64)
    drawn = unmasked(unigram, prompts, 24, MASK, steps, seed())[1, :, 4:]
    errors = (UNIGRAM * (1 - UNIGRAM) / drawn.numel()).sqrt()
    assert ((spread_of(drawn, 4)[:3] - UNIGRAM).abs() < 4 * errors).all()


def test_tokens_drawn_one_after_another_have_the_joint_distribution() -> None:
    """What is drawn would not see what was drawn before it: pairs of a Markov chain come as often as their product, and
    of a single step, where both are drawn at once, as often as the product of their margins."""
    prompts = torch.zeros(9000, 1, dtype=torch.int64)
    joint = CHAIN[0][:, None] * CHAIN
    margins = CHAIN[0][:, None] * (CHAIN @ CHAIN)[0]
    for steps, expected in ((500, joint), (1, margins)):
        drawn = unmasked(chain, prompts, 3, MASK, steps, seed())[1]
        pairs = spread_of(drawn[:, 1] * 3 + drawn[:, 2], 9)
        squares = 9000 * ((pairs - expected.flatten()).square() / expected.flatten()).sum()
        assert squares < 26.1  # chi-square with 8 degrees of freedom: 1 in 1,000 is above
    assert (joint - margins).abs().max() > 0.1


def watched(predict: Callable[[Inputs], Tensor], seen: list[Inputs]) -> Callable[[Inputs], Tensor]:
    def asked(inputs: Inputs) -> Tensor:
        seen.append({name: value.clone() for name, value in inputs.items()})
        return predict(inputs)

    return asked


def test_masks_are_taken_off_as_the_schedule_says() -> None:
    """It would be another process than MD4's: of what is masked at t, (α_s − α_t)/(1 − α_t) is not at the next s."""
    seen: list[Inputs] = []
    unmasked(watched(unigram, seen), torch.zeros(1500, 8, dtype=torch.int64), 24, MASK, 5, seed())
    masked = [(inputs["tokens"][1500:, 8:] == MASK).double().mean().item() for inputs in seen] + [0.0]
    times = [inputs["t"][0].item() for inputs in seen] + [0.0]
    assert times == pytest.approx([2 / 3 * (1 - k / 5) for k in range(6)])  # of 24 tokens 16 are masked
    alpha = [1 - t for t in times]
    for k in range(5):
        rate = (alpha[k + 1] - alpha[k]) / (1 - alpha[k])
        assert 1 - masked[k + 1] / masked[k] == pytest.approx(rate, abs=0.02)


def test_greedy_takes_the_surest_tokens_first_as_many_at_each_step() -> None:
    """The rows called greedy would be in another order, or draws."""
    sureness = torch.tensor([0.5, 0.9, 0.6, 0.8, 0.7])

    def predict(inputs: Inputs) -> Tensor:
        p = ((1 - sureness) / 2)[:, None].repeat(1, 3)
        p[torch.arange(5), torch.tensor([1, 0, 2, 1, 0])] = sureness
        return torch.cat([torch.full((1, 3), 1 / 3), p]).log().expand(len(inputs["tokens"]), 6, 3)

    seen: list[Inputs] = []
    written = unmasked(watched(predict, seen), torch.tensor([[2]]), 6, MASK, 3, seed())[0, 0]
    assert written.tolist() == [2, 1, 0, 2, 1, 0]
    states = [inputs["tokens"][0].tolist() for inputs in seen]
    _ = MASK
    assert states == [[2, _, _, _, _, _], [2, _, 0, _, _, _], [2, _, 0, _, 1, 0]]


@pytest.mark.parametrize(("known", "steps"), list(product([1, 7], [1, 2, 5, 40])))
def test_prompts_stay_no_mask_is_left_and_the_seed_decides(known: int, steps: int) -> None:
    """A sample would begin with another text than it is shown with, end unwritten, or not come again."""
    prompts = torch.randint(3, (6, known), generator=torch.Generator().manual_seed(0))
    first, again, other = (unmasked(unigram, prompts, 12, MASK, steps, seed(number)) for number in (0, 0, 1))
    assert torch.equal(first[..., :known], prompts.expand(2, 6, known))
    assert first.min() >= 0 and first.max() < MASK
    assert first.numpy().tobytes() == again.numpy().tobytes()
    assert torch.equal(first[0], other[0]) and not torch.equal(first[1], other[1])


def text_in(tmp_path: Path, **more: object) -> dict[str, Any]:
    words = [f"w{i}" for i in range(10)]
    body = " ".join(words[(i * i + i // 7) % 10] for i in range(3000))
    (tmp_path / "text.txt").write_text(body)
    return {"folder": str(tmp_path), "vocabulary_size": 13, "sequence_length": 24, "samples": 3} | more


def test_prompts_are_those_of_the_next_token_task(tmp_path: Path) -> None:
    """Samples of the two kinds of model could not be laid beside each other."""
    options = text_in(tmp_path)
    masked = MaskedTextFolder(MaskedTextFolder.Options(**options), Streams(0), 2)
    plain = TextFolder(TextFolder.Options(**options), Streams(0), 2)
    classes = masked.shape.classes
    made = masked.after_training("test", lambda inputs: torch.zeros(*inputs["tokens"].shape, classes))
    others = plain.after_training("test", lambda tokens: torch.zeros(*tokens.shape, classes))
    assert made is not None and others is not None
    assert [(d.made_by, d.prompt) for d in made.documents] == [(d.made_by, d.prompt) for d in others.documents]
    for mine, theirs in zip(made.documents[6:], others.documents[6:], strict=True):
        assert (mine.text, len(mine.text)) == (theirs.text[:-1], 12)  # the next-token window is one longer


def test_a_network_is_asked_once_a_step_and_as_often_as_there_are_tokens_by_default(tmp_path: Path) -> None:
    """A sample would cost more than is said, or the option be ignored."""
    for steps, calls in ((None, 12), (5, 5)):
        task = MaskedTextFolder(MaskedTextFolder.Options(**text_in(tmp_path, sample_steps=steps)), Streams(0), 2)
        seen: list[Inputs] = []
        predict = watched(lambda inputs: torch.zeros(*inputs["tokens"].shape, 13), seen)
        assert task.after_training("test", predict) is not None
        assert [len(inputs["tokens"]) for inputs in seen] == [6] * calls


METHODS: dict[str, dict[str, Any]] = {
    "backprop": {},
    "greedy": {"stages": 2},
    "masked_blocks": {"blocks": 3, "residency": "active"},
}


SLOW = [pytest.param(method, marks=pytest.mark.slow) for method in METHODS if method != "masked_blocks"]


@pytest.mark.parametrize("method", ["masked_blocks", *SLOW])
def test_every_method_writes_samples_from_the_same_prompts(tmp_path: Path, method: str) -> None:
    """An arm would have no samples beside the others', or figures of other ways."""
    cell = make_cell(
        method, method, task=TaskChoice(name="masked_text_folder", **text_in(tmp_path, evaluation_windows=4)),
        network=NetworkChoice(name="masked", size="micro", depth=3), options=METHODS[method], batch_size=8,
        budget=Budget(kind="samples", value=48), evaluations=1,
    )  # fmt: skip
    result = run_cell(cell, "0" * 16, lambda progress: None)
    samples = result.samples
    assert isinstance(samples, Samples)
    assert [d.made_by for d in samples.documents] == ["greedy"] * 3 + ["temperature_1"] * 3 + ["held_out"] * 3
    plain = TextFolder(TextFolder.Options(**text_in(tmp_path)), Streams(0), 2)
    others = plain.after_training("test", lambda tokens: torch.zeros(*tokens.shape, 13))
    assert others is not None
    assert [d.prompt for d in samples.documents] == [d.prompt for d in others.documents]
    assert all(len(d.text) == 12 for d in samples.documents)
    figures = {(m.variant, m.name) for m in result.record.metrics if m.split == "test"}
    assert {(way, "repetition_4") for way in ("greedy", "temperature_1", "held_out")} <= figures
    assert ("", "bits_per_character") in figures
