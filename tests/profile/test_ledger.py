"""``dbbench.Ledger`` as a stranger uses it: five lines around a step that knows nothing of it."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import dbbench
from dbbench.errors import BadInput
from dbbench.measure.flops import UncountedOps
from dbbench.measure.private import FakeTensorMode
from dbbench.results.profile import read_profile

WIDTH, BATCH, FLOAT = 64, 512, 4


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


class Net(nn.Module):
    """Two linear maps with a GELU between them."""

    def __init__(self, hidden: int = 4 * WIDTH) -> None:
        super().__init__()
        self.up = nn.Linear(WIDTH, hidden)
        self.act = nn.GELU()
        self.down = nn.Linear(hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.act(self.up(x)))


def made(hidden: int = 4 * WIDTH) -> tuple[Net, torch.optim.Optimizer, Tensor]:
    net = Net(hidden)
    return net, torch.optim.AdamW(net.parameters(), fused=True), torch.randn(BATCH, WIDTH)


def train(net: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor) -> None:
    net(x).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def watched(net: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, census: bool | None = None) -> dbbench.Ledger:
    with dbbench.Ledger(net, optimizer, inputs=x, census=census) as ledger:
        train(net, optimizer, x)
    return ledger


def sizes(net: nn.Module) -> int:
    return sum(p.nbytes for p in net.parameters())


def test_five_lines_give_every_role() -> None:
    """The README's first example would be wrong: roles against bytes counted from the shapes."""
    net, optimizer, x = made()
    train(net, optimizer, x)
    own = watched(net, optimizer, x).account().own_peaks
    counters = FLOAT * len(list(net.parameters()))
    assert own["parameters"] == own["gradients"] == sizes(net)
    assert own["optimizer"] == 2 * sizes(net) + counters
    assert own["inputs"] == x.nbytes
    # kept: GELU's input, its result for the next map, and that map's result for the square
    assert own["activations"] == (2 * BATCH * 4 * WIDTH + BATCH) * FLOAT


def test_the_peak_says_where_and_what() -> None:
    """A total would be all that a reader gets."""
    net, optimizer, x = made()
    train(net, optimizer, x)
    peak = watched(net, optimizer, x).peak
    assert sum(peak.split.values()) == peak.bytes == sum(held.bytes for held in peak.held)
    assert peak.phase == "backward"
    kept = {held.holder: (held.module, held.op, held.bytes) for held in peak.held if held.role == "activations"}
    assert kept["input of gelu in act"] == ("up", "aten.addmm", BATCH * 4 * WIDTH * FLOAT)
    assert kept["input of addmm in down"] == ("act", "aten.gelu", BATCH * 4 * WIDTH * FLOAT)
    assert f"{peak.bytes:,} bytes" in str(peak)
    assert "up" in {held.module for held in peak.held if held.role == "optimizer" and held.op == "exp_avg"}


def test_table_plot_and_folder_come_from_the_same_numbers(tmp_path: Path) -> None:
    """What is printed, drawn and kept would be of different steps."""
    net, optimizer, x = made()
    ledger = watched(net, optimizer, x)
    assert f"{ledger.peak.bytes:,} bytes" in str(ledger.table())
    assert "| role" in ledger.table().markdown()
    assert ledger.table().frame()["bytes"].sum() == ledger.peak.bytes
    ledger.plot(tmp_path / "step.png")
    assert (tmp_path / "step.png").read_bytes()[:4] == b"\x89PNG"
    ledger.save(tmp_path / "kept")
    profile, frame = read_profile(tmp_path / "kept")
    assert profile == ledger.profile()
    assert len(frame) == len(ledger.timeline())
    assert {p.name for p in (tmp_path / "kept").iterdir()} >= {"summary.md", "step.png", "step.pdf"}


def test_diff_names_what_grew() -> None:
    """Of two numbers a reader would only learn that they differ."""
    small, large = watched(*made()), watched(*made(hidden=8 * WIDTH))
    found = small.diff(large)
    assert found.difference_bytes == large.peak.bytes - small.peak.bytes
    # of 2 × 512 KiB of activations each half is doubled
    assert "activations +50 % (+0.50 MiB) in act: input of gelu kept" in found.sentences()[:2]


def test_marked_steps_are_steps_of_their_own() -> None:
    """A loop would be one long step, its set-up in the peak."""
    net, optimizer, x = made()
    with dbbench.Ledger(net, optimizer) as ledger:
        large = torch.zeros(1 << 20)
        del large
        for _ in range(3):
            with ledger.step():
                train(net, optimizer, x)
        with pytest.raises(RuntimeError, match="stop"), ledger.step():
            raise RuntimeError("stop")
    profile = ledger.profile()
    assert [step.step for step in profile.steps] == [0, 1, 2, 3]
    assert ledger.peak.bytes - profile.resident_bytes < (1 << 20) * FLOAT  # other tests leave tensors in the process
    assert profile.ended_early == "RuntimeError: stop"


def test_training_goes_as_if_nobody_watched() -> None:
    """The ledger would be part of the experiment: parameters after five steps, bit for bit."""

    def trained(watch: bool) -> list[Tensor]:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(inplace=True), nn.Dropout(0.2), nn.Linear(WIDTH, 1))
        optimizer, x = torch.optim.AdamW(net.parameters(), fused=True), torch.randn(BATCH, WIDTH)
        for _ in range(5):
            if watch:
                watched(net, optimizer, x)
            else:
                train(net, optimizer, x)
        return [p.detach() for p in net.parameters()]

    assert all(torch.equal(one, other) for one, other in zip(trained(True), trained(False), strict=True))


def test_autograd_still_refuses_what_it_refuses() -> None:
    """A step that would raise without the ledger would pass with it: a value that is needed was changed in place."""
    x = torch.ones(4, requires_grad=True)
    with dbbench.Ledger():
        y = x.exp()
        y.add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()


def test_functional_transforms_work() -> None:
    """torch.func refuses to run while default saved-tensor hooks are in force."""
    net, _, x = made()
    plain = torch.func.grad(lambda p: torch.func.functional_call(net, p, (x,)).sum())(dict(net.named_parameters()))
    with dbbench.Ledger(net) as ledger:
        seen = torch.func.grad(lambda p: torch.func.functional_call(net, p, (x,)).sum())(dict(net.named_parameters()))
    assert all(torch.equal(plain[name], seen[name]) for name in plain)
    assert ledger.peak.bytes > sizes(net)


def test_an_exception_closes_the_ledger_and_says_what_it_saw() -> None:
    """A step that ran out of memory would leave neither figures nor a usable process."""
    net, optimizer, x = made()
    with pytest.raises(RuntimeError, match="size of tensor") as raised, dbbench.Ledger(net, optimizer) as ledger:
        net(x) + torch.zeros(BATCH + 1, 1)
    assert any("until then the peak was" in line for line in raised.value.__notes__)
    assert ledger.peak.phase == "forward"
    assert "RuntimeError" in str(ledger.table())
    before = len(ledger.trace.event_op)
    train(net, optimizer, x)
    assert len(ledger.trace.event_op) == before


def test_an_optimizer_that_raises_leaves_no_phase_open() -> None:
    """All that follows would be booked on the optimizer."""
    net, optimizer, x = made()

    class Broken(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:
            raise ArithmeticError("no step")

    broken = Broken(net.parameters(), lr=0.1)
    with dbbench.Ledger(net, [optimizer, broken]) as ledger:
        with pytest.raises(ArithmeticError), ledger.step():
            broken.step()
        with ledger.step():
            train(net, optimizer, x)
    frame = ledger.timeline()
    assert "forward" in set(frame[frame["op"] == "aten.gelu"]["phase"])


def test_compiled_models_are_refused_by_name() -> None:
    """Bytes of fused kernels would be booked on ops that never ran."""
    with (
        pytest.raises(BadInput, match=r"the model \(Net\) is compiled by torch.compile"),
        dbbench.Ledger(
            torch.compile(Net())  # type: ignore[arg-type]
        ),
    ):
        pass
    net = nn.Sequential(Net(), Net())
    net[1].compile()
    with pytest.raises(BadInput, match="module '1' is compiled"), dbbench.Ledger(net):
        pass
    assert len(dbbench.Ledger(Net()).trace.event_op) == 0  # nothing is left open


def test_what_was_there_before_is_counted_and_said() -> None:
    """An old graph, a copy of the weights and a stray tensor would be missing from a ledger that opens late."""
    net, optimizer, x = made()
    average = torch.optim.swa_utils.AveragedModel(net)
    losses = [net(x).square().mean()]
    stray = torch.zeros(10_000)
    gc.collect()
    ledger = watched(net, optimizer, x)
    held = {(h.role, h.holder): h.bytes for h in ledger.peak.held}
    graph = "graph of local 'losses[0]' in test_what_was_there_before_is_counted_and_said"
    assert held["retained", graph] == (2 * BATCH * 4 * WIDTH + BATCH) * FLOAT
    assert held["retained", "local 'stray' in test_what_was_there_before_is_counted_and_said"] == stray.nbytes
    assert ledger.peak.split["ema"] >= sizes(average)
    assert ledger.profile().undeclared_bytes >= stray.nbytes + losses[0].nbytes
    assert "alive before the ledger opened" in str(ledger.table())


def test_without_a_census_only_what_is_touched_counts() -> None:
    """A cell's ledger, which opens before anything is built, would count the data set."""
    stray = torch.zeros(10_000)
    with dbbench.Ledger(census=False) as ledger:
        torch.zeros(10)
    assert ledger.peak.bytes == 10 * FLOAT
    assert stray.numel() == 10_000


def test_several_models_and_optimizers_keep_their_names() -> None:
    """Two networks' layers would be one."""
    first, second = Net(), Net()
    optimizers = [torch.optim.SGD(m.parameters(), momentum=0.9) for m in (first, second)]
    x = torch.randn(BATCH, WIDTH)
    with dbbench.Ledger({"generator": first, "critic": second}, optimizers, inputs={"x": x}) as ledger:
        for net, optimizer in zip((first, second), optimizers, strict=True):
            train(net, optimizer, x)
    modules = {h.module for h in ledger.peak.held if h.role == "parameters"}
    assert modules == {f"{name}.{part}" for name in ("generator", "critic") for part in ("up", "down")}
    assert ledger.account().own_peaks["optimizer"] == sizes(first) + sizes(second)


def test_fake_tensors_give_the_same_account() -> None:
    """An estimate would be of another step."""
    real = watched(*made(), census=False).profile()  # other tests' real tensors are none of the fake step's
    with FakeTensorMode():
        fake = watched(*made(), census=False).profile()
    assert (fake.source, real.source) == ("fake", "cpu")
    assert fake.held == real.held
    assert fake.steps == real.steps


def test_a_lazy_module_anywhere_is_no_obstacle() -> None:
    """One parameter in the process that has no shape yet would stop every ledger that counts what is there."""
    lazy = nn.LazyLinear(1)
    ledger = watched(*made(), census=True)
    assert nn.parameter.is_lazy(lazy.weight)
    assert ledger.account().own_peaks["parameters"] == sizes(made()[0])


def test_a_census_can_be_of_some() -> None:
    """What others have left behind in the process would count, or nothing that was there."""
    mine, others = torch.zeros(1 << 18), torch.zeros(1 << 20)
    with dbbench.Ledger(*made()[:2], census=lambda tensor: tensor is mine) as ledger:
        torch.zeros(1)
    assert ledger.account().own_peaks["retained"] == mine.nbytes
    assert others.nbytes > mine.nbytes


def test_strict_fails_on_what_it_cannot_count() -> None:
    """FLOPs would be short by an op that nobody named."""
    with pytest.raises(UncountedOps, match=r"aten\.linalg_matrix_exp \(1 calls\)"), dbbench.Ledger(strict=True):
        torch.linalg.matrix_exp(torch.eye(4))


def test_the_family_of_attention_is_named() -> None:
    """Two backwards of different cost would be compared as one."""
    q = torch.randn(2, 3, 8, 16, requires_grad=True)
    with dbbench.Ledger() as flash:
        F.scaled_dot_product_attention(q, q, q).sum().backward()
    with dbbench.Ledger() as math, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        F.scaled_dot_product_attention(q, q, q).sum().backward()
    assert (flash.attention, math.attention) == ("flash", "math")
    product = 2 * 2 * 3 * 8 * 8 * 16
    assert [sum(by_phase.values()) for _, by_phase in flash.flops] == [7 * product]
    assert [sum(by_phase.values()) for _, by_phase in math.flops] == [6 * product]


def test_a_closed_ledger_keeps_no_model_alive() -> None:
    """Keeping ledgers to compare them would keep every model too."""
    net, optimizer, x = made()
    ledger = watched(net, optimizer, x)
    gone = weakref.ref(net)
    del net, optimizer
    gc.collect()
    assert gone() is None
    assert ledger.peak.bytes


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: dbbench.Ledger().peak, "no finished step yet"),
        (lambda: dbbench.Ledger(device="meta"), "device 'meta'"),  # type: ignore[arg-type]
        (lambda: dbbench.Ledger().declare("weights", "w", torch.zeros(1)), "role 'weights'"),
    ],
)
def test_mistakes_get_one_clear_line(ask: Any, message: str) -> None:
    """A stranger would get a traceback from the ledger's inside."""
    with pytest.raises(BadInput, match=message):
        ask()


def test_import_stays_light() -> None:
    """``import dbbench`` would import torch."""
    import subprocess
    import sys

    code = "import sys, dbbench; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
