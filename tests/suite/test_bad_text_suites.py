"""Mistakes in suites on text end in one line and status 2 before anything is trained, estimated or written."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from dbbench.cli import app

SUITE = """\
suite: mine
task: {{{task}}}
network: {{{network}}}
budget: {{kind: samples, value: 64}}
batch_size: 8
seeds: [0]
methods:
  wrong: {{{method}}}
"""
FIRST = "  backprop: {task: {name: tokens, vocabulary: 5, sequence_length: 4}, network: {name: llama, size: micro}}"
PLAYS, MASKED = "name: plays, sequence_length: 16", "name: masked_plays, sequence_length: 16"
IMAGES, LATENTS, TOKENS = "name: digits", "name: latents, size: 8", "name: tokens, vocabulary: 11, sequence_length: 8"
LLAMA, DENOISER, RECURRENT = (f"name: {name}, size: micro" for name in ("llama", "masked", "recurrent"))
VIT, DIT, COUNTS = "name: vit, size: micro, patch: 4", "name: dit, size: S/2", "name: counts"
BLOCKS, MASKS, ONE = "method: diffusion_blocks", "method: masked_blocks", "method: diffusion_blocks, blocks: 1"
STREAMS = "is for text, and a network that runs a clean stream beside the noisy one"
DRAWS = "is for what a chain of blocks draws, and noisy latents are denoised as they come"

# (task, network, method, what the line says behind the file's name)
OPTIONS = {
    "samples below zero": (PLAYS + ", samples: -1", LLAMA, "method: backprop", "task.samples: must be greater than"),
    "samples in words": (PLAYS + ", samples: some", LLAMA, "method: backprop", "task.samples: must be a valid integer"),
    "samples of images": (IMAGES + ", samples: 4", VIT, "method: backprop", "task.samples: unknown key"),
    "samples of a method": (
        PLAYS,
        LLAMA,
        "method: backprop, samples: 4",
        "wrong.samples: unknown key (did you mean 'task.samples'?)",
    ),
    "no windows": (PLAYS + ", evaluation_windows: 0", LLAMA, "method: backprop", "task.evaluation_windows: must be"),
    "windows misspelt": (
        PLAYS + ", evaluation_window: 9",
        LLAMA,
        "method: backprop",
        "(did you mean 'evaluation_windows'?)",
    ),
    "windows of a method": (
        PLAYS,
        LLAMA,
        BLOCKS + ", evaluation_windows: 4",
        "(did you mean 'task.evaluation_windows'?)",
    ),
    "draws of masks where there are none": (
        PLAYS + ", evaluation_draws: 2",
        LLAMA,
        "method: backprop",
        "task.evaluation_draws: unknown",
    ),
    "no draw of masks": (
        MASKED + ", evaluation_draws: 0",
        DENOISER,
        "method: backprop",
        "task.evaluation_draws: must be",
    ),
    "draws of masks of a method": (
        MASKED,
        DENOISER,
        MASKS + ", evaluation_draws: 2",
        "(did you mean 'task.evaluation_draws'?)",
    ),
    "no step": (MASKED + ", sample_steps: 0", DENOISER, "method: backprop", "task.sample_steps: must be greater"),
    "steps where there are none": (
        PLAYS + ", sample_steps: 4",
        LLAMA,
        "method: backprop",
        "task.sample_steps: unknown key",
    ),
    "one number of draws": (
        PLAYS,
        LLAMA,
        BLOCKS + ", shown_draws: 4",
        "wrong.shown_draws: must be a valid list, not 4",
    ),
    "no draws": (
        PLAYS,
        LLAMA,
        BLOCKS + ", shown_draws: [4, 0]",
        "wrong.shown_draws[1]: must be greater than or equal to 1",
    ),
    "draws of backprop": (PLAYS, LLAMA, "method: backprop, shown_draws: [1]", "wrong.shown_draws: unknown key"),
    "draws of a task": (PLAYS + ", shown_draws: [1]", LLAMA, BLOCKS, "task.shown_draws: unknown key"),
    "draws of latents": (LATENTS, DIT, BLOCKS + ", shown_draws: [1]", f"wrong.shown_draws: {DRAWS}"),
    "mean over draws of latents": (LATENTS, DIT, BLOCKS + ", inference_draws: 2", f"wrong.inference_draws: {DRAWS}"),
    "streams misspelt": (
        PLAYS,
        LLAMA,
        BLOCKS + ", streams: two-pass",
        "wrong.streams: must be 'concatenated' or 'two_pass'",
    ),
    "streams of images": (IMAGES, VIT, BLOCKS + ", streams: two_pass", f"wrong.streams: {STREAMS}"),
    "streams of recurrent depth": (PLAYS, RECURRENT, ONE + ", streams: two_pass", f"wrong.streams: {STREAMS}"),
    "streams of a task": (PLAYS + ", streams: two_pass", LLAMA, BLOCKS, "wrong.streams'?)"),
    "a clean loss below zero": (PLAYS, LLAMA, BLOCKS + ", clean_weight: -1", "wrong.clean_weight: must be greater"),
    "a clean loss on images": (IMAGES, VIT, BLOCKS + ", clean_weight: 1", f"wrong.clean_weight: {STREAMS}"),
    "a clean loss of recurrent depth": (PLAYS, RECURRENT, ONE + ", clean_weight: 1", f"wrong.clean_weight: {STREAMS}"),
    "a clean loss of backprop": (PLAYS, LLAMA, "method: backprop, clean_weight: 1", "wrong.clean_weight: unknown key"),
    "no recurrence": (PLAYS, RECURRENT, "method: backprop, truncate: 0", "wrong.truncate: must be greater"),
    "too many recurrences": (
        PLAYS,
        RECURRENT,
        "method: checkpointing, truncate: 9",
        "wrong.truncate: 9 is more than the 3 times",
    ),
    "recurrences of a decoder": (
        PLAYS,
        LLAMA,
        "method: backprop, truncate: 2",
        "wrong.truncate: 2 is more than the one time",
    ),
    "recurrences of a network": (
        PLAYS,
        RECURRENT + ", truncate: 2",
        "method: backprop",
        "(did you mean 'methods.wrong.truncate'?)",
    ),
    "recurrences of a denoiser": (PLAYS, RECURRENT, ONE + ", truncate: 2", "wrong.truncate: unknown key"),
}
COMBINATIONS = {
    "blocks of noise on masks": (
        MASKED,
        DENOISER,
        BLOCKS,
        "'diffusion_blocks' has no noise for masked tokens; 'masked_blocks' has",
    ),
    "blocks of masks on text": (PLAYS, LLAMA, MASKS, "'masked_blocks' needs masked tokens, and this task has tokens"),
    "blocks of masks on tokens": (
        TOKENS,
        LLAMA,
        MASKS,
        "'masked_blocks' needs masked tokens, and this task has tokens",
    ),
    "blocks of masks on images": (IMAGES, VIT, MASKS, "'masked_blocks' needs masked tokens, and this task has images"),
    "n-grams of images": (
        IMAGES,
        COUNTS,
        "method: ngram",
        "network.name: 'counts' takes tokens, and this task has images",
    ),
    "n-grams of images by a network": (
        IMAGES,
        VIT,
        "method: ngram",
        "wrong.network: an n-gram trains none, so name it {name: counts}",
    ),
    "n-grams by a decoder": (
        PLAYS,
        LLAMA,
        "method: ngram",
        "wrong.network: an n-gram trains none, so name it {name: counts}",
    ),
    "n-grams of depth": (PLAYS, COUNTS + ", depth: 2", "method: ngram", "so name it {name: counts}, without a depth"),
    "n-grams of masks": (MASKED, COUNTS, "method: ngram", "'counts' takes tokens, and this task has masked tokens"),
    "n-grams without a key": (
        PLAYS,
        COUNTS,
        "method: ngram, order: 12",
        "wrong.order: 12 tokens before one of 81 have no key",
    ),
    "backprop of counts": (
        PLAYS,
        COUNTS,
        "method: backprop",
        "wrong.method: trains parameters, and the network has none",
    ),
    "stages of counts": (
        PLAYS,
        COUNTS,
        "method: greedy",
        "wrong.layers_per_stage: 1 is more than the network's 0 layers",
    ),
    "blocks of counts": (PLAYS, COUNTS, ONE, "wrong.blocks: 1 is more than the network's 0 layers"),
    "blocks of a recurrence": (
        PLAYS,
        RECURRENT,
        BLOCKS + ", blocks: 3",
        "wrong.blocks: 3 is more than the network's 2 layers",
    ),
    "blocks of a deep recurrence": (
        PLAYS,
        RECURRENT + ", depth: 4",
        BLOCKS + ", blocks: 3",
        "wrong.blocks: must be 1, not 3",
    ),
    "stages of a recurrence": (
        PLAYS,
        RECURRENT,
        "method: greedy",
        "'greedy' freezes layers, and this network runs the same ones 3",
    ),
    "a decoder of masks": (
        MASKED,
        LLAMA,
        "method: backprop",
        "network.name: 'llama' takes tokens, and this task has masked tokens",
    ),
    "a denoiser of text": (
        PLAYS,
        DENOISER,
        "method: backprop",
        "network.name: 'masked' takes masked tokens, and this task has tokens",
    ),
    "a recurrence of masks": (
        MASKED,
        RECURRENT,
        "method: backprop",
        "'recurrent' takes tokens, and this task has masked tokens",
    ),
    "a misspelt method": (
        MASKED,
        DENOISER,
        "method: masked_block",
        "unknown method 'masked_block' (did you mean 'masked_blocks'?)",
    ),
}


def suite_with(tmp_path: Path, task: str, network: str, method: str) -> Path:
    file = tmp_path / "mine.yaml"
    file.write_text(SUITE.format(task=task, network=network, method=method))
    return file


def refused(file: Path, *order: str) -> str:
    """Return the one line behind the file's name."""
    result = CliRunner().invoke(app, list(order))
    assert result.exit_code == 2, result.output + repr(result.exception)
    assert not result.stdout
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"dbbench: {file}: ")
    return line.removeprefix(f"dbbench: {file}: ")


@pytest.mark.parametrize("mistake", [*OPTIONS, *COMBINATIONS])
def test_it_is_one_line_at_a_dry_run_already(tmp_path: Path, mistake: str) -> None:
    """A user would find out after the first cell's hour, from a traceback, or not at all."""
    *parts, expected = {**OPTIONS, **COMBINATIONS}[mistake]
    file = suite_with(tmp_path, *parts)
    assert expected in refused(file, "run", str(file), "--device", "cpu", "--dry-run")


FOR_ANOTHER_TASK = [
    "blocks of noise on masks",
    "blocks of masks on text",
    "n-grams by a decoder",
    "stages of a recurrence",
]


@pytest.mark.parametrize("mistake", FOR_ANOTHER_TASK)
def test_it_is_found_before_the_first_cell_is_trained(tmp_path: Path, mistake: str) -> None:
    """The cell before it would be trained for nothing, or a baseline be written without it."""
    *parts, expected = COMBINATIONS[mistake]
    file = suite_with(tmp_path, *parts)
    first, second = file.read_text().split("methods:\n")
    file.write_text(f"{first}methods:\n{FIRST}\n{second}")
    assert expected in refused(file, "run", str(file), "--device", "cpu", "--out", str(tmp_path / "out"))
    gate = tmp_path / "gate.tsv"
    assert expected in refused(file, "check", "--fake", str(file), "--baseline", str(gate), "--update", "--no-github")
    assert not (tmp_path / "out").exists() and not gate.exists()
