"""``hf:gpt2,batch=2,sequence=128``: a training step of a transformers model by its configuration, with random weights.

What follows ``hf:`` is a model type that transformers knows, for its default configuration, or a local folder or file
with a ``config.json``. Then come settings: ``batch``, ``sequence`` (of text) and ``optimizer`` (of torch.optim, such as
adamw), and whatever the configuration has, such as ``n_layer=4``. Nothing is downloaded.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from dbbench.errors import BadInput, did_you_mean
from dbbench.measure.private import in_fake_mode

PREFIX = "hf:"
_DEFAULTS: dict[str, Any] = {"batch": 2, "sequence": 128, "optimizer": "adamw"}
#: By the mapping of transformers that has a model for it: what it is trained on.
_TASKS = {
    "MODEL_FOR_CAUSAL_LM_MAPPING": "text",
    "MODEL_FOR_MASKED_LM_MAPPING": "text",
    "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING": "text",
    "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING": "images",
}
_POSITIONS = ("max_position_embeddings", "n_positions")


def is_reference(reference: str) -> bool:
    """Whether ``reference`` names a model of transformers."""
    return reference.startswith(PREFIX)


def completed(reference: str, settings: Mapping[str, Any]) -> str:
    """Return ``reference`` with those of ``settings`` that it has not itself, None left out, then the defaults."""
    name, own = _parsed(reference)
    given = {key: value for key, value in settings.items() if value is not None}
    whole = _DEFAULTS | given | own
    return PREFIX + ",".join([name, *(f"{key}={value}" for key, value in whole.items())])


def maker(reference: str) -> Callable[..., dict[str, Any]]:
    """Return the callable of ``device`` that makes the training. Raises BadInput for what is no model or setting."""
    name, own = _parsed(reference)
    settings = _DEFAULTS | own
    transformers = _transformers(reference)
    config = _config(transformers, name, reference)
    more = {key: value for key, value in settings.items() if key not in _DEFAULTS}
    for key, value in more.items():
        if not hasattr(config, key):
            raise BadInput(f"{reference}: {key}: no such setting{did_you_mean(key, [*_DEFAULTS, *config.to_dict()])}")
        setattr(config, key, value)
    for key in ("batch", "sequence"):
        if type(settings[key]) is not int or settings[key] < 1:
            raise BadInput(f"{reference}: {key}: {settings[key]!r:.40} is no whole number above 0")
    model_class, kind = _model_class(config, reference)
    optimizer_class = _optimizer(str(settings["optimizer"]), reference)
    positions = next((p for name in _POSITIONS if isinstance(p := getattr(config, name, None), int)), None)
    if kind == "text" and positions is not None and settings["sequence"] > positions:
        raise BadInput(f"{reference}: sequence: {settings['sequence']} is more than the model's {positions} positions")

    def make_step(device: str) -> dict[str, Any]:
        with _without_values():
            model = model_class.from_config(config) if hasattr(model_class, "from_config") else model_class(config)
        model.to(device).train()
        inputs = _inputs(config, kind, settings["batch"], settings["sequence"], device)
        optimizer = optimizer_class(model.parameters(), lr=1e-4)

        def step() -> None:
            model(**inputs).loss.backward()
            optimizer.step()
            optimizer.zero_grad()

        return {"model": model, "optimizer": optimizer, "step": step, "inputs": inputs}

    return make_step


def _parsed(reference: str) -> tuple[str, dict[str, Any]]:
    name, *settings = reference.removeprefix(PREFIX).split(",")
    if not name:
        raise BadInput(f"{reference}: name a model type or a folder with a config.json, such as hf:gpt2")
    found: dict[str, Any] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key:
            raise BadInput(f"{reference}: '{setting}' is no setting, such as batch=2")
        try:
            found[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise BadInput(f"{reference}: {key}: '{value}' is no value") from error
    return name, found


def _transformers(reference: str) -> Any:
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise BadInput(f"{reference}: needs the package transformers: pip install 'dbbench[hf]'") from error


def _config(transformers: Any, name: str, reference: str) -> Any:
    path = Path(name)
    if path.exists():
        try:
            return transformers.AutoConfig.from_pretrained(name, local_files_only=True, trust_remote_code=False)
        except Exception as error:  # transformers has no one kind
            raise BadInput(f"{reference}: {name}: no configuration that transformers can read ({error})") from error
    known = importlib.import_module("transformers.models.auto.configuration_auto").CONFIG_MAPPING_NAMES
    if name not in known:
        near = did_you_mean(name, known)
        hint = near if "did you mean" in near else ""
        raise BadInput(f"{reference}: '{name}' is no model type of transformers, nor a local folder{hint}")
    return transformers.AutoConfig.for_model(name)


def _model_class(config: Any, reference: str) -> tuple[Any, str]:
    auto = importlib.import_module("transformers.models.auto.modeling_auto")
    for mapping, kind in _TASKS.items():
        if type(config) in getattr(auto, mapping):
            found = getattr(auto, mapping)[type(config)]
            return (found[0] if isinstance(found, tuple) else found), kind
    raise BadInput(f"{reference}: {type(config).__name__} trains neither a language model nor a classifier of images")


def _optimizer(name: str, reference: str) -> Any:
    offered = {
        key.lower(): value
        for key, value in vars(torch.optim).items()
        if isinstance(value, type) and issubclass(value, torch.optim.Optimizer) and key != "Optimizer"
    }
    if name.lower() not in offered:
        raise BadInput(f"{reference}: optimizer: there is no '{name}'{did_you_mean(name, offered)}")
    return offered[name.lower()]


@contextlib.contextmanager
def _without_values() -> Any:
    """Draw no weights where tensors are fake: some of transformers' draws look at what they drew."""
    if not in_fake_mode():
        yield
        return
    with importlib.import_module("transformers.initialization").no_init_weights():
        yield


def _inputs(config: Any, kind: str, batch: int, sequence: int, device: str) -> dict[str, Any]:
    if kind == "text":
        tokens = torch.randint(config.vocab_size, (batch, sequence), device=device)
        return {"input_ids": tokens, "labels": tokens.clone()}
    size = getattr(config, "image_size", 224)
    height, width = size if isinstance(size, (tuple, list)) else (size, size)
    images = torch.randn(batch, getattr(config, "num_channels", 3), height, width, device=device)
    return {"pixel_values": images, "labels": torch.randint(config.num_labels, (batch,), device=device)}
