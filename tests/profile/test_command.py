"""``dbbench profile``: from a stranger's callable to a table, a folder and an exit status."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from toy_train import BATCH
from typer.testing import CliRunner

from dbbench.cli import app
from dbbench.errors import BadInput
from dbbench.measure import rates
from dbbench.profile import command
from dbbench.profile.command import Order, profile_step
from dbbench.results.profile import read_profile

HERE = Path(__file__).parent
# convolution forward, its weight's gradient (no input's), the map forward and its two gradients
CONVOLUTION, LINEAR = 2 * BATCH * 64 * 8 * 3 * 9, 2 * BATCH * 8 * 64 * 10


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


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
    assert (fake.source, fake.device_figures, fake.seconds_per_step) == ("fake", None, [])
    assert fake.held == real.held
    assert fake.steps == real.steps
    assert fake.steps[0].flops == {"forward": CONVOLUTION + LINEAR, "backward": CONVOLUTION + 2 * LINEAR}


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


def test_strict_fails_and_names_the_op() -> None:
    """FLOPs that are too few would pass a check."""
    assert invoke("toy_train:inverts").exit_code == 0
    done = invoke("toy_train:inverts", "--strict")
    assert done.exit_code == 1
    assert "aten.linalg_inv_ex (1 calls)" in done.output


def test_a_step_that_needs_values_is_told_so_on_fake_tensors() -> None:
    """A traceback from torch's inside would be all."""
    done = invoke("toy_train:reads_a_value", "--device", "fake")
    assert done.exit_code == 1
    line = done.output.splitlines()[-1]
    assert "toy_train.py:" in line
    assert "a fake tensor has no values: keep .item()" in line


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("toy_train", "name a callable as package.module:callable"),
        ("toy_train:make_stp", "did you mean 'make_step'?"),
        ("toy_trian:make_step", "no module 'toy_trian'"),
        ("no/such/file.py:make", "no file 'no/such/file.py'"),
        ("toy_train:NOT_CALLABLE", "is a int, not a callable"),
        ("toy_train:nothing", "without 'model'"),
        ("toy_train:without_step", "without 'step'"),
        ("toy_train:misspelt", "unknown key 'optimiser' (did you mean 'optimizer'?)"),
        ("toy_train:no_module", "its model is a function, not a torch module"),
        ("toy_train:needs_more", "takes the parameter 'batch_size'"),
        ("toy_train:raises", "fails with OSError: the data are gone"),
        ("toy_train:compiled", "is compiled by torch.compile"),
    ],
)
def test_mistakes_get_one_line_and_status_two(target: str, message: str) -> None:
    """A stranger would read a traceback."""
    done = invoke(target)
    assert done.exit_code == 2, done.output
    assert message in " ".join(done.output.split())
    assert len(done.output.splitlines()) == 1


def test_what_only_cuda_has_is_refused_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot of nothing, or a profile of another device than was asked for."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "sees no CUDA device" in invoke("toy_train:make_step", "--device", "cuda").output
    done = invoke("toy_train:make_step", "--snapshot", str(tmp_path / "s.pickle"))
    assert done.exit_code == 2
    assert "on CUDA alone" in done.output


def test_a_snapshot_is_torchs_own_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recording would stay on, or be dumped after it was switched off."""
    calls: list[Any] = []
    memory = SimpleNamespace(_record_memory_history=lambda **how: calls.append(how), _dump_snapshot=calls.append)
    monkeypatch.setattr(torch.cuda, "memory", memory)
    with command._recorded(Order(device="cuda", snapshot=tmp_path / "a" / "s.pickle")):
        calls.append("steps")
    assert calls == [{}, "steps", str(tmp_path / "a" / "s.pickle"), {"enabled": None}]
    assert (tmp_path / "a").is_dir()


@pytest.mark.parametrize(
    ("dtype", "tf32", "precision"),
    [(torch.float32, False, "fp32"), (torch.float32, True, "tf32"), (torch.bfloat16, False, "bf16")],
)
def test_the_rate_is_that_of_the_parameters_products(
    dtype: torch.dtype, tf32: bool, precision: rates.Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MFU would be a share of another rate than the one that the products run at."""
    monkeypatch.setattr(torch.backends.cuda, "matmul", SimpleNamespace(allow_tf32=tf32))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100 80GB HBM3")
    training = command.Training(torch.nn.Linear(2, 2, dtype=dtype), None, lambda: None)
    rate, source = command._peak_rate(Order(device="cuda"), training)
    assert rate == rates.peak_flops_per_second("NVIDIA H100 80GB HBM3", precision)[0]
    assert precision in source


def test_help_needs_no_torch() -> None:
    """The command line would take seconds to say what it can do."""
    import subprocess

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
