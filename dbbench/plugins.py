"""Finds methods, tasks and networks by name: our own, an installed package's entry point, or a dotted path.

A stranger's method needs no change here: a suite names it ``my_package.methods:MyMethod`` or ``file.py:MyMethod``, the
file found from the working folder or beside the suite; or the package declares an entry point in the group
``dbbench.methods`` (``dbbench.tasks``, ``dbbench.networks``).
"""

from __future__ import annotations

import importlib
import re
from importlib.metadata import entry_points
from typing import Any

from dbbench.errors import BadInput, did_you_mean
from dbbench.foreign import guarded, in_words
from dbbench.importing import find_file, is_file, module_of_file

_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
BUILT_IN: dict[str, dict[str, str]] = {
    "methods": {
        "backprop": "dbbench.methods.backprop:Backprop",
        "checkpointing": "dbbench.methods.checkpointing:Checkpointing",
        "greedy": "dbbench.methods.greedy:Greedy",
        "diffusion_blocks": "dbbench.methods.diffusion_blocks:DiffusionBlocks",
        "ngram": "dbbench.methods.ngram:NGram",
        "masked_blocks": "dbbench.methods.masked_blocks:MaskedBlocks",
    },
    "tasks": {
        "digits": "dbbench.tasks.image_classification:Digits",
        "fashion_mnist_10k": "dbbench.tasks.image_classification:FashionMnist10k",
        "fashion_mnist": "dbbench.tasks.image_classification:FashionMnist",
        "cifar10": "dbbench.tasks.image_classification:Cifar10",
        "cifar100": "dbbench.tasks.image_classification:Cifar100",
        "image_dataset": "dbbench.tasks.image_classification:ImageDataset",
        "images": "dbbench.tasks.synthetic:SyntheticImages",
        "latents": "dbbench.tasks.synthetic:Latents",
        "tokens": "dbbench.tasks.synthetic:Tokens",
        "masked_tokens": "dbbench.tasks.synthetic:MaskedTokens",
        "plays": "dbbench.tasks.text:Plays",
        "text_folder": "dbbench.tasks.text:TextFolder",
        "text_dataset": "dbbench.tasks.text:TextDataset",
        "masked_plays": "dbbench.tasks.masked_text:MaskedPlays",
        "masked_text_folder": "dbbench.tasks.masked_text:MaskedTextFolder",
        "masked_text_dataset": "dbbench.tasks.masked_text:MaskedTextDataset",
    },
    "networks": {
        "vit": "dbbench.networks.vit:ViT",
        "dit": "dbbench.networks.dit:DiT",
        "llama": "dbbench.networks.llama:Llama",
        "masked": "dbbench.networks.masked:Masked",
        "recurrent": "dbbench.networks.recurrent:Recurrent",
        "linear": "dbbench.networks.linear:LinearClassifier",
        "counts": "dbbench.networks.counts:Counts",
    },
}


def known(group: str) -> dict[str, str]:
    """Return ``{name: "module:attribute"}`` of ``group``: ours and those of installed packages."""
    installed = {e.name: e.value for e in entry_points(group=f"dbbench.{group}")}
    return installed | BUILT_IN[group]


def find(group: str, name: str, where: str) -> Any:
    """Import what ``name`` stands for in ``group`` (``methods``, ``tasks`` or ``networks``).

    ``where`` (file and key) opens the message of the `BadInput` raised when there is nothing of that name, or when
    importing it fails, in whatever way.
    """
    table = known(group)
    path = table.get(name, name)
    if ":" not in path:
        raise BadInput(f"{where}: unknown {group[:-1]} '{name}'{did_you_mean(name, table)}")
    module_name, _, attribute = path.rpartition(":")
    dotted = f"file:{attribute}" if is_file(module_name) else path
    if not _PATH.fullmatch(dotted):
        kind = f"My{group[:-1].title()}"
        raise BadInput(f"{where}: '{path}' is no dotted path such as my_package.{group}:{kind}, nor file.py:{kind}")
    try:
        with guarded():
            found: Any
            if is_file(module_name):
                found = module_of_file(find_file(module_name), f"{where}: '{path}'")
            else:
                found = importlib.import_module(module_name)
    except BadInput:
        raise
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if module_name == missing or module_name.startswith(f"{missing}."):
            raise BadInput(f"{where}: cannot import '{path}': no module '{missing}'") from error
        raise BadInput(f"{where}: importing '{module_name}' fails with {in_words(error)}") from error
    except Exception as error:
        raise BadInput(f"{where}: importing '{module_name}' fails with {in_words(error)}") from error
    for part in attribute.split("."):
        found = _attribute(found, part, f"{where}: '{path}'")
    return found


def _attribute(owner: Any, name: str, where: str) -> Any:
    nothing = object()
    try:
        with guarded():
            found = getattr(owner, name, nothing)
    except Exception as error:  # of a module's own __getattr__
        raise BadInput(f"{where}: reading '{name}' fails with {in_words(error)}") from error
    if found is nothing:
        offered = [key for key, value in getattr(owner, "__dict__", {}).items() if isinstance(value, type)]
        raise BadInput(f"{where}: there is no '{name}' in it{did_you_mean(name, offered)}")
    return found
