"""``dbbench profile``: from a stranger's callable to a table, a folder and an exit status."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import toy_train
from toy_train import BATCH, HIDDEN, WIDTH
from typer.testing import CliRunner

from dbbench.cli import app
from dbbench.errors import BadInput
from dbbench.measure import rates
from dbbench.profile import command
from dbbench.profile.command import Order, profile_step
from dbbench.profile.table import MemoryTable
from dbbench.profile.target import Target
from dbbench.results.profile import read_profile

HERE = Path(__file__).parent
# convolution forward, its weight's gradient (no input's), the map forward and its two gradients
PARAMETERS = WIDTH * HIDDEN + HIDDEN + HIDDEN + 1
CONVOLUTION, LINEAR = 2 * BATCH * 64 * 8 * 3 * 9, 2 * BATCH * 8 * 64 * 10


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    torch.set_num_threads(1)
    toy_train.calls.clear()
    yield
    toy_train.seen.clear()  # tensors that another test's ledger would find


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["profile", *arguments])


def test_a_profile_is_printed_and_kept(tmp_path: Path) -> None:
    """The command would show one thing and keep another."""
    done = invoke("toy_train:make_step", "--steps", "2", "--out", str(tmp_path / "p"), "--peak-flops", "1e12")
    assert done.exit_code == 0, done.output
    profile, frame = read_profile(tmp_path / "p")
    assert f"{profile.peak_bytes:,} bytes" in done.output
    assert "MFU" in done.output
    assert "1.00 TFLOP/s (--peak-flops)" in done.output
    assert [step.step for step in profile.steps] == [0, 1]
    assert {path.name for path in (tmp_path / "p").iterdir()} == {
        "profile.json", "trace.parquet", "summary.md", "step.png", "step.pdf",
    }  # fmt: skip
    assert set(frame["step"]) == {0, 1}
    assert profile.resident_bytes == 0  # the ledger was there first


def test_the_allocators_peak_is_explained(tmp_path: Path) -> None:
    """The difference between ledger and allocator would be nobody's: a convolution's scratch."""
    profile = profile_step("toy_train:make_step", Order()).profile
    assert profile.device_figures is not None
    assert profile.device_figures.device_peak_bytes is not None
    assert profile.kernel_workspace_bytes is not None
    assert profile.kernel_workspace_bytes >= 0
    assert profile.device_figures.workspace_op is not None
    assert set(profile.device_figures.reasons) == {"allocated_bytes", "reserved_bytes", "nvml_process_peak_bytes"}
    assert len(profile.seconds_per_step) == Order().timed_steps


def test_fake_tensors_give_the_same_bytes_and_flops() -> None:
    """An estimate would be of another step. The model is moved with ``.to``, which torch refuses for fake tensors."""
    real, fake = (profile_step("toy_train:make_step", Order(device=d)).profile for d in ("cpu", "fake"))
    assert (fake.source, fake.seconds_per_step) == ("fake", [])
    assert fake.held == real.held
    assert fake.steps == real.steps
    assert fake.steps[0].flops == {"forward": CONVOLUTION + LINEAR, "backward": CONVOLUTION + 2 * LINEAR}


def test_on_fake_tensors_the_caching_allocator_is_simulated(tmp_path: Path) -> None:
    """Reserved bytes would be missing without a GPU, would count scratch of the set-up, or pass for measured.

    4 MiB of parameters take a segment of 20 MiB, in which 12 MiB more have room; 1,000 bytes are a block of 1,024 in a
    segment of 2 MiB. The 60 MiB that only the set-up needed are not there.
    """
    (tmp_path / "known.py").write_text(
        "import torch\n"
        "def make():\n"
        "    torch.empty(60 << 20, dtype=torch.uint8)\n"
        "    model = torch.nn.Linear(1024, 1024, bias=False)\n"
        "    def step():\n"
        "        large, small = torch.empty(12 << 20, dtype=torch.uint8), torch.empty(1000, dtype=torch.uint8)\n"
        "    return model, torch.optim.SGD(model.parameters(), lr=0.1), step\n"
    )
    profile = profile_step(f"{tmp_path}/known.py:make", Order(device="fake")).profile
    figures = profile.device_figures
    assert figures is not None
    assert figures.simulated
    assert profile.peak_bytes == (16 << 20) + 1000
    assert (figures.allocated_bytes, figures.reserved_bytes) == ((16 << 20) + 1024, 22 << 20)
    assert set(figures.reasons) == {"device_peak_bytes", "nvml_process_peak_bytes"}
    page = str(MemoryTable(profile))
    assert "Simulated: what CUDA's caching allocator would take" in page
    assert "own account" not in page


@pytest.mark.parametrize("name", ["net", "checkpointed", "halved", "averaged", "leaking"])
def test_the_ledgers_peak_is_the_allocators(name: str) -> None:
    """Something would have been there before the ledger opened, or the passes would have taken different steps."""
    profile = profile_step(f"toy_train:{name}", Order(steps=2, timed_steps=1)).profile
    assert profile.resident_bytes == 0
    if name == "halved" and profile.kernel_workspace_bytes:  # some CPUs pack the operands of a product in bf16
        assert profile.device_figures is not None
        assert profile.device_figures.workspace_op == "aten.mm"
    else:
        assert profile.kernel_workspace_bytes == 0


@pytest.mark.parametrize("name", ["checkpointed", "halved", "averaged", "leaking", "recurrent"])
def test_fake_tensors_follow_what_most_code_does(name: str) -> None:
    """A cast, a copy or a list of losses would end a step on fake tensors, or cost other bytes."""
    real, fake = (profile_step(f"toy_train:{name}", Order(steps=2, device=d)) for d in ("cpu", "fake"))
    assert fake.failure is None
    assert fake.profile.steps == real.profile.steps
    assert fake.profile.held == real.profile.held
    assert list(fake.frame["bytes"]) == list(real.frame["bytes"])


def test_a_model_far_beyond_this_machine_is_profiled(tmp_path: Path) -> None:
    """Fake tensors would take memory: four maps of a million by a million are 7 TiB in bf16."""
    (tmp_path / "huge.py").write_text(
        "import torch\nfrom torch import nn\n"
        "def make():\n"
        "    model = nn.Sequential(*(nn.Linear(10**6, 10**6, bias=False) for _ in range(4))).to(torch.bfloat16)\n"
        "    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)\n"
        "    x = torch.randn(1, 10**6, dtype=torch.bfloat16)\n"
        "    def step():\n"
        "        model(x).sum().backward()\n"
        "        optimizer.step()\n"
        "        optimizer.zero_grad()\n"
        "    return model, optimizer, step\n"
    )
    profile = profile_step(f"{tmp_path}/huge.py:make", Order(device="fake")).profile
    assert profile.own_peaks["parameters"] == 4 * 10**12 * 2


def test_batch_and_average_have_their_roles() -> None:
    """What the callable names beside model, optimizer and step would be called retained."""
    profile = profile_step("toy_train:averaged", Order(device="fake")).profile
    assert profile.own_peaks["inputs"] == BATCH * WIDTH * 4
    assert profile.own_peaks["ema"] == profile.own_peaks["parameters"] == PARAMETERS * 4
    assert toy_train.seen == ["cpu"]


def test_what_a_step_keeps_between_calls_is_named() -> None:
    """A list in the step's closure would leak under no name: between steps no function of the user's runs."""
    profile = profile_step("toy_train:leaking", Order(steps=3)).profile
    leaked = {row.holder for row in profile.held if row.role == "retained" and row.op == "aten.gelu"}
    # at the third traced step's peak the graphs of the warm-up and of two steps are kept
    assert leaked == {f"graph of local 'step.<losses>[{i}]' in leaking" for i in range(3)}


def test_each_pass_makes_everything_anew_from_the_same_seed() -> None:
    """The passes would account for different models, or one pass's model would weigh on the next."""
    done = profile_step("toy_train:net", Order(steps=2, warmup=3, timed_steps=4))
    assert toy_train.calls == Counter(make=3, step=(3 + 2) + (3 + 2) + (3 + 4))
    assert len({float(number) for number in toy_train.seen}) == 1
    assert len(done.profile.seconds_per_step) == 4
    assert len(done.profile.steps) == 2
    gc.collect()
    assert not toy_train.models


def test_without_warm_up_the_first_step_makes_the_optimizers_state() -> None:
    """``--warmup 0`` would still take a step before the traced one."""
    resident = []
    for warmup in (0, 1):
        frame = profile_step("toy_train:net", Order(warmup=warmup, device="fake")).frame
        there = frame[(frame["phase"] == "resident") & (frame["role"] == "optimizer")]
        resident.append(there["bytes"].sum())
    assert resident == [0, 2 * PARAMETERS * 4 + 4 * 4]


def test_a_file_and_a_dict_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only packages could be profiled."""
    monkeypatch.chdir(HERE.parent)
    done = invoke("profile/toy_train.py:as_dict", "--rows", "50")
    assert done.exit_code == 0, done.output
    assert "inputs" in done.output


def test_what_a_failing_step_had_reached_is_shown(tmp_path: Path) -> None:
    """A run out of memory would leave nothing to look at."""
    done = invoke("toy_train:fails_when_traced", "--out", str(tmp_path))
    assert done.exit_code == 1
    assert "ArithmeticError: the second step fails" in done.output
    assert "toy_train.py:" in done.output  # the line of their code
    profile, _ = read_profile(tmp_path)
    assert profile.ended_early is not None
    assert profile.peak_bytes > 0


def test_a_failing_warm_up_leaves_a_profile_too() -> None:
    """Memory often runs out in the very first step."""
    done = profile_step("toy_train:fails_at_once", Order())
    assert done.failure is not None and done.failure.startswith("ArithmeticError: the first step fails (")
    assert done.profile.ended_early == done.failure
    assert done.profile.own_peaks["parameters"] > 0


def test_a_pass_outside_the_ledger_that_fails_costs_its_figures_alone() -> None:
    """What the ledger found would be lost with it."""
    done = profile_step("toy_train:fails_the_second_time", Order())
    assert done.failure is None and done.profile.peak_bytes > 0
    assert (done.profile.device_figures, done.profile.seconds_per_step) == (None, [])
    assert any("OSError: the port is taken (" in note for note in done.profile.notes)


def test_strict_fails_and_names_the_op() -> None:
    """FLOPs that are too few would pass a check."""
    assert invoke("toy_train:inverts").exit_code == 0
    done = invoke("toy_train:inverts", "--strict")
    assert done.exit_code == 1
    assert "aten.linalg_matrix_exp (1 calls)" in done.output


@pytest.mark.parametrize(
    ("name", "words", "code"),
    [
        ("reads_a_value", "this needs a number (.item()", "print(next(model.parameters()).sum().item())"),
        ("reads_a_shape", "this shape depends on data (a boolean mask", "weight > 0].sum()"),
        ("reads_an_array", "this asks for a numpy array", ".detach().numpy()"),
        ("uses_the_outside", "a real tensor meets a fake one: it was made before", "self.act(self.up(x))"),
    ],
)
def test_a_fake_step_that_needs_data_is_told_where_and_what_to_do(
    name: str, words: str, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A traceback from torch's inside would be all."""
    monkeypatch.setattr(toy_train, "OUTSIDE", torch.ones(BATCH, WIDTH))
    done = invoke(f"toy_train:{name}", "--device", "fake")
    assert done.exit_code == 1
    (line,) = done.stderr.splitlines()
    assert words in line and "--device cpu" in line
    assert "toy_train.py:" in line and code in line


def test_what_only_cuda_has_is_refused_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot of nothing, or a profile of another device than was asked for."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "sees no CUDA device" in invoke("toy_train:make_step", "--device", "cuda").output
    done = invoke("toy_train:make_step", "--snapshot", str(tmp_path / "s.pickle"))
    assert done.exit_code == 2
    assert "on CUDA alone" in done.output
    done = invoke("toy_train:make_step", "--device", "fake", "--peak-flops", "1e12")
    assert (done.exit_code, "take no time" in done.stderr) == (2, True)


def test_a_snapshot_is_torchs_own_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recording would stay on, or be dumped after it was switched off."""
    calls: list[Any] = []
    memory = SimpleNamespace(_record_memory_history=lambda **how: calls.append(how), _dump_snapshot=calls.append)
    monkeypatch.setattr(torch.cuda, "memory", memory)
    with command._recorded(Order(device="cuda", snapshot=tmp_path / "a" / "s.pickle")):
        calls.append("steps")
    assert calls == [{}, "steps", str(tmp_path / "a" / "s.pickle"), {"enabled": None}]
    assert (tmp_path / "a").is_dir()


def test_the_rate_is_that_of_what_the_step_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An autocast step would be held to the rate of its fp32 parameters."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100 80GB HBM3")
    model, x = torch.nn.Linear(8, 8), torch.randn(2, 8)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            model(x)

    training = command.Training(model, None, step)
    rate, source = command._peak_rate(Order(device="cuda"), training)
    assert rate == rates.peak_flops_per_second("NVIDIA H100 80GB HBM3", "bf16")[0]
    assert "dense bf16" in source
    assert command._peak_rate(Order(device="cuda", precision="fp32"), training)[0] == 67e12


def test_factories_default_to_cuda_unless_the_callable_asks_where(monkeypatch: pytest.MonkeyPatch) -> None:
    """A callable that knows of no device would train on the CPU, or one that does would lose its CPU tensors."""
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: None)
    for name, device in (("averaged", "cpu"), ("net", "cuda")):
        with command._place(Target(f"toy_train:{name}"), Order(device="cuda")) as told:
            assert told == "cuda"
            try:
                made = torch.empty(1).device.type
            except (AssertionError, RuntimeError) as error:  # there is no CUDA here, and it was asked for
                made = "cuda" if "CUDA" in str(error) or "NVIDIA" in str(error) else str(error)
            assert made == device


def test_the_installed_command_finds_a_script_by_its_path(tmp_path: Path) -> None:
    """It would work from a test that has everything imported, and not from a shell."""
    run = [sys.executable, "-m", "dbbench", "profile", f"{toy_train.__file__}:net", "--device", "fake"]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "MiB at the peak" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_help_needs_no_torch() -> None:
    """The command line would take seconds to say what it can do."""
    code = (
        "import sys\nfrom dbbench.cli import app\n"
        "try: app(['profile', '--help'])\nfinally: print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "False"


def test_bad_input_is_the_libraries_error_too() -> None:
    """`profile_step` would raise what only the command line knows."""
    with pytest.raises(BadInput, match="no module"):
        profile_step("nowhere:make", Order())
