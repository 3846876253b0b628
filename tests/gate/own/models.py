"""Three models that are not ours, each trained by a step that can go wrong in ten ways."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from dbbench.profile import hugging_face

#: The regression that the next training has, '' for none.
PLANTED = ""

#: By name: the roles one of which must be named, or '' where FLOPs alone change; None where it is a larger batch.
REGRESSIONS: dict[str, tuple[str, ...] | None] = {
    "keeps_the_loss": ("retained",),
    "retains_the_graph": ("retained",),
    "forgets_zero_grad": ("gradients",),
    "amsgrad": ("optimizer",),
    "looks_twice": (),
    "keeps_outputs": ("retained",),
    "averages_weights": ("retained", "ema"),
    "upcasts": ("activations", "temporaries", "weight_casts"),
    "has_a_buffer": ("buffers",),
    "larger_batch": None,
}


def _conv(batch: int) -> dict[str, Any]:
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(16 * 16 * 16, 10),
    )  # fmt: skip
    x, y = torch.randn(batch, 3, 16, 16), torch.randint(10, (batch,))
    return {"model": model, "inputs": (x, y), "loss": lambda: F.cross_entropy(model(x), y), "layer": model[3]}


def _transformers(reference: str, layer: Callable[[nn.Module], nn.Module]) -> dict[str, Any]:
    made = hugging_face.maker(reference)("cpu")
    model, inputs = made["model"], made["inputs"]
    return {"model": model, "inputs": inputs, "loss": lambda: model(**inputs).loss, "layer": layer(model)}


def _gpt2(batch: int) -> dict[str, Any]:
    return _transformers(
        f"hf:gpt2,batch={batch},sequence=32,n_layer=2,n_embd=64,n_head=2,vocab_size=100",
        lambda model: model.transformer.h[1].mlp,  # type: ignore[union-attr,index,return-value]
    )


def _vit(batch: int) -> dict[str, Any]:
    return _transformers(
        f"hf:vit,batch={batch},num_hidden_layers=2,hidden_size=64,num_attention_heads=2,intermediate_size=128,"
        "image_size=32,patch_size=8",
        lambda model: next(m for m in model.modules() if type(m).__name__ == "ViTLayer"),
    )


def _training(build: Callable[[int], dict[str, Any]]) -> dict[str, Any]:
    """Return the training that ``build`` makes, with the regression that is planted."""
    made = build(8 if PLANTED == "larger_batch" else 4)
    model, loss_of, layer = made["model"], made["loss"], made["layer"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, amsgrad=PLANTED == "amsgrad")
    kept: list[Any] = []
    if PLANTED == "keeps_outputs":
        layer.register_forward_hook(lambda module, given, output: kept.append(output))
    if PLANTED == "upcasts":
        layer.register_forward_hook(lambda module, given, output: _up(output))
    if PLANTED == "has_a_buffer":
        layer.register_buffer("cache", torch.zeros(1000))

    def step() -> None:
        if PLANTED == "looks_twice":
            with torch.no_grad():
                loss_of()
        loss = loss_of()
        loss.backward(retain_graph=PLANTED == "retains_the_graph")
        if PLANTED in ("keeps_the_loss", "retains_the_graph"):
            kept.append(loss_of() if PLANTED == "keeps_the_loss" else loss)
        optimizer.step()
        if PLANTED != "forgets_zero_grad":
            optimizer.zero_grad()
        if PLANTED == "averages_weights":
            kept[:] = [copy.deepcopy(model).requires_grad_(False)]

    return {"model": model, "optimizer": optimizer, "step": step, "inputs": made["inputs"]}


def _up(output: Any) -> Any:
    if isinstance(output, Tensor):
        return (output.double() * 1.0).tanh().to(output.dtype)
    return (_up(output[0]), *output[1:])


def conv() -> dict[str, Any]:
    """Make the training of a convolutional network of the test's own."""
    return _training(_conv)


def gpt2() -> dict[str, Any]:
    """Make that of transformers' GPT-2."""
    return _training(_gpt2)


def vit() -> dict[str, Any]:
    """Make that of transformers' ViT."""
    return _training(_vit)


def checkpointed() -> dict[str, Any]:
    """Make a training that recomputes, to be told from one that does not."""
    layers = nn.ModuleList(nn.Sequential(nn.Linear(64, 64), nn.GELU()) for _ in range(4))
    x = torch.randn(32, 64)

    def step() -> None:
        h = x.requires_grad_()
        for layer in layers:
            h = checkpoint(layer, h, use_reentrant=False) if PLANTED == "" else layer(h)
        h.sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    optimizer = torch.optim.SGD(layers.parameters(), lr=0.1)
    return {"model": layers, "optimizer": optimizer, "step": step, "inputs": x}
