"""``dbbench profile`` on real modules, from the target's name to the folder it leaves."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import toy_train
from torch import nn
from typer.testing import CliRunner

from dbbench.cli import app
from dbbench.errors import BadInput
from dbbench.measure import private
from dbbench.profile.command import profile_step
from dbbench.profile.target import default_device, load_target
from dbbench.profile.untraced import flops_by_precision, rate_of
from dbbench.results.profile import Profile, read_profile

FLOAT = 4
SIZES = [(toy_train.HIDDEN, toy_train.WIDTH), (toy_train.CLASSES, toy_train.HIDDEN)]
PARAMETERS = sum(rows * columns + rows for rows, columns in SIZES)
#: FLOPs of the two products on a batch.
FORWARD = 2 * toy_train.BATCH * sum(rows * columns for rows, columns in SIZES)


@pytest.fixture(autouse=True)
def _fresh() -> None:
    torch.set_num_threads(1)
    toy_train.calls.clear()
    toy_train.draws.clear()
    toy_train.devices.clear()


def held(profile: Profile) -> Counter[tuple[str, str, str, str | None]]:
    sizes: Counter[tuple[str, str, str, str | None]] = Counter()
    for row in profile.held:
        sizes[row.role, row.module, row.op, row.holder] += row.bytes
    return sizes


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["profile", *arguments])


# -- what it measures -----------------------------------------------------------------------------------------------


def test_every_role_and_flop_of_a_step_counted_by_hand() -> None:
    """The command's figures would not be those of the step that it ran."""
    profile, _ = profile_step("toy_train:plain")
    assert profile.own_peaks["parameters"] == profile.own_peaks["gradients"] == PARAMETERS * FLOAT
    assert profile.own_peaks["optimizer"] == 2 * PARAMETERS * FLOAT + 4 * FLOAT
    # the first map gives no gradient to its inputs
    first = 2 * toy_train.BATCH * toy_train.WIDTH * toy_train.HIDDEN
    assert profile.flops_per_step == {"forward": FORWARD, "backward": 2 * FORWARD - first}
    assert (profile.name, profile.source, profile.ended_early) == ("toy_train:plain", "cpu", None)


@pytest.mark.parametrize("name", ["plain", "checkpointed", "averaged", "half", "leaking"])
def test_the_ledgers_peak_is_the_allocators(name: str) -> None:
    """Something was there before the ledger opened, or the two passes took different steps."""
    profile, _ = profile_step(f"toy_train:{name}", steps=2)
    assert profile.resident_bytes == 0
    assert profile.device_figures is not None
    assert profile.device_figures.device_peak_bytes == profile.peak_bytes
    assert profile.kernel_workspace_bytes == 0


@pytest.mark.parametrize("name", ["plain", "checkpointed", "averaged", "half", "leaking"])
def test_fake_tensors_give_the_bytes_and_flops_of_real_ones(name: str) -> None:
    """A model that does not fit would be given a wrong answer, in total or in any of its lines."""
    real, real_frame = profile_step(f"toy_train:{name}", steps=2)
    fake, fake_frame = profile_step(f"toy_train:{name}", steps=2, device="fake")
    assert fake.peak_bytes == real.peak_bytes
    assert held(fake) == held(real)
    assert fake.own_peaks == real.own_peaks
    assert fake.steps == real.steps
    assert list(fake_frame["bytes"]) == list(real_frame["bytes"])
    assert (fake.source, fake.seconds_per_step, fake.device_figures) == ("fake", [], None)


def test_a_model_far_beyond_this_machine_is_profiled(tmp_path: Path) -> None:
    """Fake tensors would take memory: four maps of a million by a million are 16 TiB."""
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
    profile, _ = profile_step(f"{tmp_path}/huge.py:make", device="fake")
    assert profile.own_peaks["parameters"] == 4 * 10**12 * 2


def test_inputs_and_average_have_their_roles_whatever_form_they_come_in() -> None:
    """What the callable names beside the three would be called retained."""
    for name in ("checkpointed", "averaged"):
        profile, _ = profile_step(f"toy_train:{name}", device="fake")
        batch = toy_train.BATCH * (toy_train.WIDTH * FLOAT + 8)
        assert profile.own_peaks["inputs"] == batch
        assert profile.own_peaks["ema"] == (PARAMETERS * FLOAT if name == "averaged" else 0)
    assert toy_train.devices == ["cpu"]


def test_what_a_step_keeps_between_calls_is_named() -> None:
    """A list in the step's closure would leak for years as «no name»: no running function of the user's has it."""
    profile, _ = profile_step("toy_train:leaking", steps=3)
    leaked = [row for row in profile.held if row.role == "retained" and row.op == "aten.gelu"]
    # at the third step's peak the graphs of the warm-up and of two steps are kept
    assert [row.holder for row in sorted(leaked, key=lambda row: str(row.holder))] == [
        f"graph of local 'step.<losses>[{i}]' in leaking" for i in range(3)
    ]


def test_each_pass_makes_everything_anew_from_the_same_seed() -> None:
    """The passes would account for different models, or the first one's would weigh on the second's figures."""
    profile, _ = profile_step("toy_train:make_step", steps=2, warmup=3, timed_steps=4)
    assert toy_train.calls == Counter(make=2, step=(3 + 2) + (3 + 2 + 4))
    assert toy_train.draws[0] == toy_train.draws[1]
    assert [step.step for step in profile.steps] == [3, 4]
    assert len(profile.seconds_per_step) == 4
    assert min(profile.seconds_per_step) > 0
    gc.collect()
    assert not toy_train.models


def test_without_warm_up_the_first_step_makes_the_optimizers_state() -> None:
    """``--warmup 0`` would still take a step before the traced one."""
    resident = []
    for warmup in (0, 1):
        profile, frame = profile_step("toy_train:plain", warmup=warmup, device="fake")
        assert [step.step for step in profile.steps] == [warmup]
        there = frame[(frame["phase"] == "resident") & (frame["role"] == "optimizer")]
        resident.append(there["bytes"].sum())
    assert resident == [0, 2 * PARAMETERS * FLOAT + 4 * FLOAT]


def test_a_given_rate_gives_utilization_and_is_printed_with_it() -> None:
    """MFU would be a number without a denominator."""
    profile, _ = profile_step("toy_train:plain", peak_flops=1e9)
    assert (profile.peak_flops_per_second, profile.peak_flops_source) == (1e9, "given by --peak-flops")
    result = run("toy_train:plain", "--device", "cpu", "--peak-flops", "1e9")
    assert "MFU" in result.stdout and "1.00 GFLOP/s (given by --peak-flops)" in result.stdout


# -- the rate that a step is held to --------------------------------------------------------------------------------


@pytest.fixture
def matmul() -> Iterator[Any]:
    """cuBLAS's switches, without tf32 as torch has them, and put back afterwards."""
    switches = torch.backends.cuda.matmul
    before, switches.fp32_precision = switches.fp32_precision, "ieee"
    yield switches
    switches.fp32_precision = before


def test_flops_are_told_apart_by_what_computes_them(matmul: Any) -> None:
    """A bf16 step would be held to the rate of fp32, or fp32 products to that of tensor cores."""
    model, x = nn.Linear(8, 4), torch.randn(2, 8)
    once = 2 * 2 * 8 * 4
    assert flops_by_precision(lambda: model(x)) == {"fp32": once}

    def cast() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            model(x)
        model(x).sum().backward()

    assert flops_by_precision(cast) == {"bf16": once, "fp32": 2 * once}
    matmul.fp32_precision = "tf32"
    assert flops_by_precision(lambda: model(x)) == {"tf32": once}
    assert flops_by_precision(lambda: model.double()(x.double())) == {"float64": once}


def test_convolutions_have_a_switch_of_their_own(matmul: Any) -> None:
    """torch lets cuDNN use tf32 by default and cuBLAS not: one switch for both would be wrong for one."""
    convolution, image = nn.Conv2d(1, 1, 3), torch.randn(1, 1, 8, 8)
    assert torch.backends.cudnn.conv.fp32_precision == "tf32"
    assert set(flops_by_precision(lambda: convolution(image))) == {"tf32"}


def test_the_rate_is_that_of_most_flops() -> None:
    """Mixed precision would be held to the slower rate, and look better than it is."""
    rate, source = rate_of("NVIDIA A100-SXM4-80GB", {"bf16": 90, "fp32": 10})
    assert rate == 312e12
    assert "90.0% of the FLOPs are bf16" in source
    assert rate_of("NVIDIA A100-SXM4-80GB", {"bf16": 1})[1].endswith("312 TFLOP/s dense bf16")
    for flops, word in (({"float64": 1}, "float64"), ({}, "no FLOPs")):
        rate, reason = rate_of("NVIDIA A100-SXM4-80GB", flops)
        assert rate is None and word in reason


# -- CUDA's parts that need no device -------------------------------------------------------------------------------


def test_factories_default_to_cuda_unless_the_callable_asks_for_the_device() -> None:
    """A callable that knows of no device would train on the CPU, or one that does would lose its CPU tensors."""
    assert default_device(toy_train.plain, "cuda") == torch.device("cuda")
    for make, device in ((toy_train.averaged, "cuda"), (toy_train.plain, "cpu")):
        with default_device(make, device):
            assert torch.empty(1).device.type == "cpu"


def test_the_snapshot_is_written_while_the_history_is_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file would be empty, or the recording would go on for the rest of the process."""
    done: list[Any] = []
    monkeypatch.setattr(torch.cuda.memory, "_record_memory_history", lambda enabled="all": done.append(enabled))
    monkeypatch.setattr(torch.cuda.memory, "_dump_snapshot", done.append)
    with private.memory_history("step.pickle"):
        done.append("work")
    assert done == ["all", "work", "step.pickle", None]
    done.clear()
    with pytest.raises(ValueError), private.memory_history("step.pickle"):
        raise ValueError
    assert done == ["all", None]
    done.clear()
    with private.memory_history(None):
        pass
    assert done == []


def test_cuda_without_a_device_is_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that was to be profiled on CUDA would be profiled elsewhere, or end in a traceback."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = run("toy_train:plain", "--device", "cuda")
    assert result.exit_code == 2
    assert result.stderr.startswith("dbbench: --device cuda: torch ")


# -- what a user can get wrong --------------------------------------------------------------------------------------

BAD_TARGETS = {
    "toy_train": "a target is MODULE:CALLABLE",
    ":make_step": "a target is MODULE:CALLABLE",
    "toy_train:make_stp": "toy_train has no 'make_stp' (did you mean 'make_step'?)",
    "toy_train:NOT_CALLABLE": "is a int: a target is a callable",
    "toy_train:wants_much": "needs 'batch, width', and is to take nothing, or 'device' alone",
    "json.decodr:make": "no module 'json.decodr' (did you mean 'decoder'?)",
    "no/such/file.py:make": "no/such/file.py: no such file",
    "toy_train:returns_two": "returns 2 things, not (model, optimizer, step)",
    "toy_train:returns_nothing": "returns None without model and optimizer and step",
    "toy_train:returns_typo": "returns an unknown 'optimiser' (did you mean 'optimizer'?)",
    "toy_train:returns_swapped": "its model is a AdamW, and is to be a torch.nn.Module",
    "toy_train:returns_a_list_of_parameters": "its optimizer is a Parameter, and is to be",
    "toy_train:returns_no_function": "its step is a Tensor, and is to be a function that trains once",
    "toy_train:returns_a_step_with_a_batch": "its step needs 'batch', and is to take nothing",
    "toy_train:elsewhere": "the model is on cuda, and cpu is to be profiled; give toy_train:elsewhere",
    "toy_train:compiled": "compiled by torch.compile",
    "toy_train:raising_at_once": "KeyError: 'no data' (tests/profile/toy_train.py:",
}


@pytest.mark.parametrize("target", BAD_TARGETS)
def test_a_mistake_is_one_line_and_status_2(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A typo would end in a traceback, or in a message that does not say what to do."""
    monkeypatch.chdir(Path(__file__).parents[2])
    result = run(target, "--device", "cpu")
    assert result.exit_code == 2, result.output
    assert BAD_TARGETS[target] in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


def test_the_working_directory_is_searched_and_typos_in_it_are_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``dbbench profile train:make_step`` would not find the script that lies right there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "fine_tune_here.py").write_text("def make_step():\n    return 1\n")
    assert load_target("fine_tune_here:make_step")() == 1
    assert load_target("fine_tune_here.py:make_step")() == 1
    with pytest.raises(BadInput, match=r"no module 'fine_tune_her' \(did you mean 'fine_tune_here'\?\)"):
        load_target("fine_tune_her:make_step")
    with pytest.raises(BadInput, match=r"fine_tune_her.py: no such file \(did you mean 'fine_tune_here.py'\?\)"):
        load_target("fine_tune_her.py:make_step")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import no_such_library\n", "cannot import MODULE: ModuleNotFoundError: No module named 'no_such_library'"),
        ("x = 1\nraise RuntimeError('no licence')\n", "RuntimeError: no licence (MODULE.py:2: raise RuntimeError"),
        ("def make_step(:\n", "SyntaxError: invalid syntax"),
        ("import sys\nsys.exit(3)\n", "cannot import MODULE: SystemExit: 3 (MODULE.py:2: sys.exit(3))"),
    ],
)
@pytest.mark.parametrize("suffix", ["", ".py"])
def test_a_module_that_fails_to_import_says_where(
    text: str, message: str, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The module would be called missing, or exit on our behalf."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    name = f"fails_{abs(hash((text, suffix)))}"
    (tmp_path / f"{name}.py").write_text(text)
    with pytest.raises(BadInput) as caught:
        load_target(f"{name}{suffix}:make_step")
    assert message.replace("MODULE.py", f"{name}.py").replace("MODULE", name + suffix) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("asks_number", "print(loss.item()): needs a number"),
        ("asks_shape", "loss = loss + x[x > 0].sum(): makes a shape that depends on data"),
        ("asks_array", "loss.detach().numpy(): asks for a numpy array"),
        ("asks_outside", "a real tensor meets a fake one: it was made before the callable ran"),
    ],
)
def test_a_fake_step_that_asks_for_data_names_the_line_and_the_remedy(name: str, what: str) -> None:
    """The user would see torch's words for it, from the depths of torch."""
    result = run(f"toy_train:{name}", "--device", "fake")
    assert result.exit_code == 2
    assert what in result.stderr and "--device cpu" in result.stderr
    assert result.stderr.startswith("dbbench: ") and "toy_train.py:" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_options_that_do_not_go_together_are_refused() -> None:
    """An option would be passed over in silence."""
    for arguments, word in (
        (["--snapshot", "x"], "--snapshot"),
        (["--device", "fake", "--peak-flops", "1e12"], "--peak-flops"),
        (["--peak-flops", "0"], "--peak-flops"),
    ):
        device = [] if "--device" in arguments else ["--device", "cpu"]
        result = run("toy_train:plain", *device, *arguments)
        assert result.exit_code == 2
        assert result.stderr.startswith(f"dbbench: {word}: ")


# -- steps that fail ------------------------------------------------------------------------------------------------


def test_an_exception_in_a_step_leaves_the_profile_of_what_ran(tmp_path: Path) -> None:
    """The run that failed, often for want of memory, would say nothing of where the memory was."""
    folder = tmp_path / "out"
    result = run("toy_train:raising", "--device", "cpu", "--out", str(folder))
    assert result.exit_code == 1
    assert "out of patience" in result.stderr and "toy_train.py:" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert "the step ended early" in result.stdout
    profile, _ = read_profile(folder)
    whole, _ = profile_step("toy_train:plain")
    assert profile.ended_early is not None and "out of patience" in profile.ended_early
    assert profile.peak_bytes == whole.peak_bytes
    assert profile.device_figures is None and profile.seconds_per_step == []


def test_an_exception_before_the_first_traced_step_leaves_a_profile_too() -> None:
    """A warm-up that runs out of memory would leave nothing."""
    profile, _ = profile_step("toy_train:raising_in_warmup")
    assert profile.ended_early is not None and profile.ended_early.startswith("ValueError: out of patience")
    assert profile.own_peaks["parameters"] == PARAMETERS * FLOAT


def test_an_untraced_pass_that_fails_is_said_and_costs_its_figures_alone() -> None:
    """The traced pass's figures would be lost with it, or the device's be reported as measured."""
    profile, _ = profile_step("toy_train:raising_the_second_time")
    assert profile.peak_bytes > 0 and profile.ended_early is None
    assert profile.seconds_per_step == []
    assert profile.device_figures is not None
    assert profile.device_figures.device_peak_bytes is None
    assert "the port is taken" in profile.device_figures.reasons["device_peak_bytes"]
    assert any("the port is taken" in note for note in profile.notes)


def test_strict_fails_on_an_op_without_a_formula_and_names_it() -> None:
    """FLOPs that nobody counted would pass for none."""
    loose = run("toy_train:uncounted", "--device", "fake")
    assert loose.exit_code == 0
    assert "aten.linalg_qr" in loose.stdout
    strict = run("toy_train:uncounted", "--device", "fake", "--strict")
    assert strict.exit_code == 1
    assert strict.stderr == ("dbbench: toy_train:uncounted: --strict: no FLOP formula for aten.linalg_qr (1 call)\n")
    assert run("toy_train:plain", "--device", "fake", "--strict").exit_code == 0


# -- what it leaves -------------------------------------------------------------------------------------------------


def test_the_folder_holds_what_was_printed(tmp_path: Path) -> None:
    """``--out`` would keep another step than the one shown, or leave a file out."""
    folder = tmp_path / "out"
    result = run("toy_train:plain", "--device", "cpu", "--steps", "2", "--rows", "3", "--out", str(folder))
    assert result.exit_code == 0, result.output
    names = {"profile.json", "trace.parquet", "summary.md", "step.png", "step.pdf"}
    assert {path.name for path in folder.iterdir()} == names
    profile, frame = read_profile(folder)
    assert f"({profile.peak_bytes:,} bytes)" in result.stdout
    assert sorted(set(frame["step"])) == [1, 2]
    assert profile.name == "toy_train:plain"
    again = CliRunner().invoke(app, ["diff", str(folder), str(folder)])
    assert again.exit_code == 0 and "nothing: every line is the same to the byte" in again.stdout


def test_the_installed_command_finds_a_script_by_its_path(tmp_path: Path) -> None:
    """It would work from a test that has everything imported, and not from a shell."""
    script = Path(toy_train.__file__)
    done = subprocess.run(
        [sys.executable, "-m", "dbbench", "profile", f"{script}:plain", "--device", "fake"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "MiB at the peak" in done.stdout
    assert list(tmp_path.iterdir()) == []
