"""Activations against torch's own saved-tensor hooks: what the ledger calls an activation is what autograd keeps."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.ledger_steps import STEPS, Setup
from benchmarks.ledger_steps.peers import SavedBytes, saved_peak_bytes
from benchmarks.ledger_steps.truth import alone, tell, watched
from dbbench.measure.ledger import BareLedger

Forward = Callable[[Setup], tuple[Tensor, Tensor]]

#: Kinds in which hooks see less than is kept: inside a checkpoint, under other hooks, what a wrapper stands for, and
#: what is saved before they are there.
UNSEEN_BY_HOOKS = {
    *(name for name in STEPS if name.startswith("checkpoint") and not name.endswith(("reentrant", "segments"))),
    "gpt2_checkpointed",
    "packed_in_half",
    "packed_in_numpy",
    "saved_on_cpu",
    "subclass_parameter",
    "subclass_parameter_opened_late",
    "subclass_activation",
    "nested_jagged",
    "leaked_losses",
    "func_grad",
    "per_sample_gradients",
    "resized_storages",
    "fsdp_checkpointed",
    # hooks are per thread
    "forward_in_a_thread",
    "forward_in_a_pool",
    "forward_through_asyncio",
    "halves_in_threads",
    "ctc",  # keeps targets that were there before, which are no activation
}
#: Kinds whose casts of weights are another role: the hooks cannot tell them from activations.
CASTING = {"autocast_bf16", "autocast_accumulation"}


@pytest.fixture(autouse=True)
def _quiet_and_single() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")


def _classify(setup: Setup) -> tuple[Tensor, Tensor]:
    logits = setup.models["model"](setup.inputs["x"])
    return logits, F.cross_entropy(logits, setup.inputs["y"])


def _next_token(setup: Setup) -> tuple[Tensor, Tensor]:
    tokens = setup.inputs["tokens"]
    logits = setup.models["model"](tokens)
    return logits, F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


def _borrowed(setup: Setup) -> tuple[Tensor, Tensor]:
    out = setup.models["model"](**setup.inputs)
    return out.logits, out.loss


MODELS: dict[str, Forward] = {
    "mlp": _classify,
    "shared_depth": _classify,
    "tied_weights": _next_token,
    "conv_batchnorm": _classify,
    "lstm": _classify,
    "transformer_encoder": _classify,
    "attention": _classify,
    "gpt2": _borrowed,
    "llama": _borrowed,
    "vit": _borrowed,
    "resnet": _borrowed,
}


def _built(name: str) -> Setup:
    torch.manual_seed(0)
    return STEPS[name].build()


@pytest.mark.parametrize("held", [False, True], ids=["logits_dropped", "logits_held"])
@pytest.mark.parametrize("name", MODELS)
def test_activations_equal_saved_tensor_hooks(name: str, held: bool) -> None:
    """A tensor that a caller holds would count as an activation, or one that autograd keeps would not."""
    kept: list[Any] = []

    def train(setup: Setup) -> None:
        logits, loss = MODELS[name](setup)
        if held:
            kept[:] = [logits, loss]
        del logits
        loss.backward()

    setup = _built(name)
    saved = SavedBytes(setup)
    with saved.hooks():
        train(setup)
    setup = _built(name)
    with BareLedger() as ledger:
        tell(ledger, setup)
        with ledger.step(0):
            train(setup)
    account = ledger.account()
    assert account.own_peaks["activations"] == saved.peak_bytes > 0


def _seen_kinds() -> list[str]:
    return [name for name in STEPS if name not in UNSEEN_BY_HOOKS | CASTING]


@pytest.mark.parametrize("name", _seen_kinds())
def test_activations_of_a_kind_equal_what_hooks_see(name: str) -> None:
    """In some loop the ledger's activations are not what autograd keeps."""
    account = watched(STEPS[name]).account
    assert account is not None
    assert account.own_peaks["activations"] == saved_peak_bytes(STEPS[name])


@pytest.mark.parametrize("name", sorted(CASTING))
def test_activations_and_kept_casts_are_what_hooks_see_under_autocast(name: str) -> None:
    """A cast of a weight would count as an activation, or the other way round."""
    account = watched(STEPS[name]).account
    assert account is not None
    biases = 3 * (4 * 32 + 32) + 10  # cast as well, but added and not kept
    both = account.own_peaks["activations"] + account.own_peaks["weight_casts"]
    assert both - 2 * biases == saved_peak_bytes(STEPS[name])


@pytest.mark.parametrize("name", ["mlp", "attention", "gpt2", "checkpoint_module", "gradient_penalty", "lstm"])
def test_the_ledger_leaves_autograd_what_it_had(name: str) -> None:
    """The ledger's own look at what is kept would keep it longer, and raise the real peak."""
    assert watched(STEPS[name]).allocator_peak_bytes == alone(STEPS[name]).allocator_peak_bytes


@pytest.mark.parametrize(
    ("name", "kept_bytes"),
    [
        # two halves of log-probabilities and of the sum of weights that the loss keeps
        ("subclass_parameter", 2 * (16 * 10 * 4 + 4)),
        # fifteen rows of the input, the hidden layer and the output, and four offsets
        ("nested_jagged", 15 * (32 + 64 + 32) * 4 + 4 * 8),
    ],
)
def test_what_a_wrapper_stands_for_is_an_activation(name: str, kept_bytes: int) -> None:
    """The tensors inside a wrapper that autograd keeps would be temporaries."""
    account = watched(STEPS[name]).account
    assert account is not None
    assert account.own_peaks["activations"] == kept_bytes
