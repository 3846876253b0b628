"""The one line for Trainer, Lightning and Accelerate gives the ledger that a hand-written loop gives."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dbbench import Ledger
from dbbench.errors import BadInput
from dbbench.integrations.one_step import OneStep
from dbbench.results.profile import read_profile

WIDTH, HIDDEN, BATCH, FLOAT = 64, 256, 32, 4
PARAMETERS = (WIDTH * HIDDEN + HIDDEN + HIDDEN + 1) * FLOAT
#: The inputs of GELU, of the last layer and of the square; the batch is another role.
ACTIVATIONS = (2 * BATCH * HIDDEN + BATCH) * FLOAT
ROLES = ("parameters", "gradients", "optimizer", "inputs")


class Net(nn.Module):
    """Returns the loss beside the output, as transformers' models do."""

    def __init__(self, fails_at: int = 0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, 1))
        self.fails_at, self.calls = fails_at, 0

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        self.calls += 1
        hidden = self.layers[:2](x)
        if self.calls == self.fails_at:
            raise MemoryError("no room")
        return {"loss": self.layers[2](hidden).square().mean()}


class Told(list[str]):
    """Keeps what is told."""

    def __call__(self, text: str) -> None:
        self.append(text)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def by_hand(accumulate: int = 1) -> dict[str, int]:
    """The roles' own peaks of the second step of a loop without a framework."""
    model = Net()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    own: dict[str, int] = {}
    for _ in range(2):
        batches = [torch.ones(BATCH, WIDTH) for _ in range(accumulate)]
        with Ledger(model, optimizer, inputs=batches) as ledger:
            for x in batches:
                model(x)["loss"].backward()
            optimizer.step()
            optimizer.zero_grad()
        own = ledger.account().own_peaks
    return own


def fused(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, fused=True)


Run = Callable[[Net, Path, Told, int, int], OneStep]


def with_trainer(model: Net, folder: Path, told: Told, step: int, accumulate: int) -> OneStep:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    from dbbench.integrations.transformers import MemoryCallback

    callback = MemoryCallback(step, tell=told, save=folder / "profile")
    arguments = transformers.TrainingArguments(
        str(folder / "trainer"),
        max_steps=3,
        per_device_train_batch_size=BATCH,
        gradient_accumulation_steps=accumulate,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        save_strategy="no",
    )
    transformers.Trainer(
        model,
        arguments,
        train_dataset=[{"x": torch.ones(WIDTH)} for _ in range(3 * BATCH * accumulate)],
        optimizers=(fused(model.parameters()), None),
        callbacks=[callback],
    ).train()
    return callback


def with_accelerate(model: Net, folder: Path, told: Told, step: int, accumulate: int) -> OneStep:
    accelerate = pytest.importorskip("accelerate")
    from dbbench.integrations.accelerate import watch_step

    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=accumulate)
    loader = torch.utils.data.DataLoader(torch.ones(3 * BATCH * accumulate, WIDTH), batch_size=BATCH)
    prepared, optimizer, loader = accelerator.prepare(model, fused(model.parameters()), loader)
    watched = watch_step(accelerator, step, tell=told, save=folder / "profile")
    for x in loader:
        with accelerator.accumulate(prepared):
            accelerator.backward(prepared(x)["loss"])
            optimizer.step()
            optimizer.zero_grad()
    return watched


def with_lightning(model: Net, folder: Path, told: Told, step: int, accumulate: int) -> OneStep:
    lightning = pytest.importorskip("lightning.pytorch")
    from dbbench.integrations.lightning import MemoryCallback

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = model

        def training_step(self, batch: Tensor, index: int) -> Tensor:
            return self.net(batch)["loss"]

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return fused(self.parameters())

    callback = MemoryCallback(step, tell=told, save=folder / "profile")
    lightning.Trainer(
        max_epochs=1,
        callbacks=[callback],
        logger=False,
        accelerator="cpu",
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    ).fit(Module(), torch.utils.data.DataLoader(torch.ones(3 * BATCH, WIDTH), batch_size=BATCH))
    return callback


FRAMEWORKS: dict[str, Run] = {
    "trainer": with_trainer,
    "accelerate": with_accelerate,
    "lightning": with_lightning,
}


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_framework_s_step_costs_what_the_loop_costs(name: str, tmp_path: Path) -> None:
    """The callback opens too late, or is told of too little, and what belongs to the model is retained."""
    told = Told()
    watched = FRAMEWORKS[name](Net(), tmp_path, told, 2, 1)
    assert watched.ledger is not None
    account, own = watched.ledger.account(), by_hand()
    assert {role: account.own_peaks[role] for role in ROLES} == {role: own[role] for role in ROLES}
    assert account.own_peaks["parameters"] == PARAMETERS
    assert account.own_peaks["activations"] == ACTIVATIONS
    assert sum(account.split.values()) == account.peak_bytes
    assert {held.role for held in watched.ledger.kept if held.bytes > 64} <= {"retained"}
    assert watched.ledger.kept_bytes <= 1024
    (text,) = told
    assert "memory of training step 2" in text
    assert str(watched.table) in text
    profile, _ = read_profile(tmp_path / "profile")
    assert profile.peak_bytes == account.peak_bytes


@pytest.mark.parametrize("name", ["trainer", "accelerate"])
def test_all_batches_of_an_update_are_one_step(name: str, tmp_path: Path) -> None:
    """One batch of several would stand for the update."""
    watched = FRAMEWORKS[name](Net(), tmp_path, Told(), 2, 3)
    once = FRAMEWORKS[name](Net(), tmp_path / "once", Told(), 2, 1)
    assert watched.ledger is not None
    assert once.ledger is not None
    (of_three,), (of_one,) = (w.ledger.profile().steps for w in (watched, once) if w.ledger is not None)
    assert of_three.flops["forward"] == 3 * of_one.flops["forward"] > 0


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_training_learns_the_same(name: str, tmp_path: Path) -> None:
    """Watching a step changes what it learns."""
    watched, alone = Net(), Net()
    FRAMEWORKS[name](watched, tmp_path / "a", Told(), 2, 1)
    FRAMEWORKS[name](alone, tmp_path / "b", Told(), 9, 1)
    for one, other in zip(watched.parameters(), alone.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_forward_that_fails_is_told_and_ends_the_ledger(name: str, tmp_path: Path) -> None:
    """An out-of-memory error leaves a ledger open that counts all that comes."""
    told = Told()
    with pytest.raises(MemoryError, match="no room"):
        FRAMEWORKS[name](Net(fails_at=2), tmp_path, told, 2, 1)
    (text,) = told
    assert "MemoryError: no room" in " ".join(text.split())
    assert torch.utils._python_dispatch._get_current_dispatch_mode() is None


def test_training_that_ends_before_the_step_says_so(tmp_path: Path) -> None:
    """A table that never comes is waited for."""
    for name in ("trainer", "lightning"):
        told = Told()
        assert FRAMEWORKS[name](Net(), tmp_path, told, 9, 1).table is None
        assert told == ["dbbench: training ended after 3 steps, before step 9: no table"]


@pytest.mark.parametrize("step", [0, -1, 1.5, True, "2"])
def test_a_step_that_cannot_come_is_refused(step: Any) -> None:
    """No table, and no word why."""
    with pytest.raises(BadInput, match="counted from 1"):
        OneStep(step)


def test_accelerate_is_asked_after_it_prepared() -> None:
    """An accelerator that knows no model would be waited for in vain."""
    accelerate = pytest.importorskip("accelerate")
    from dbbench.integrations.accelerate import watch_step

    accelerate.Accelerator(cpu=True).free_memory()
    with pytest.raises(BadInput, match="prepare"):
        watch_step(accelerate.Accelerator(cpu=True))
