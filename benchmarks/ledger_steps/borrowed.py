"""Kinds on models from elsewhere: transformers', in train mode, tiny and with random weights (nothing is fetched)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.ledger_steps.catalogue import LENGTH, WIDTH, Setup, adamw, kind


def _borrowed(make: Callable[[], tuple[nn.Module, dict[str, Tensor]]]) -> Setup:
    """Return the five-line step on a model of transformers in train mode with the inputs it wants."""
    model, inputs = make()
    model.train()
    optimizer = adamw(model)

    def step() -> None:
        model(**inputs).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return Setup(step, {"model": model}, [optimizer], inputs)


def _gpt2_model() -> tuple[nn.Module, dict[str, Tensor]]:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=100, n_positions=LENGTH, n_embd=WIDTH, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0
    )
    tokens = torch.randint(0, 100, (4, LENGTH))
    return GPT2LMHeadModel(config), {"input_ids": tokens, "labels": tokens}


@kind("transformers' GPT-2, random weights, dropout 0.1", opens="after")
def gpt2() -> Setup:
    return _borrowed(_gpt2_model)


@kind("transformers' GPT-2 with its own gradient checkpointing")
def gpt2_checkpointed() -> Setup:
    def make() -> tuple[nn.Module, dict[str, Tensor]]:
        model, inputs = _gpt2_model()
        model.activation_checkpointing_enable()  # type: ignore[operator]
        return model, inputs

    return _borrowed(make)


@kind("transformers' Llama, random weights")
def llama() -> Setup:
    def make() -> tuple[nn.Module, dict[str, Tensor]]:
        from transformers import LlamaConfig, LlamaForCausalLM

        config = LlamaConfig(
            vocab_size=100,
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
        )
        tokens = torch.randint(0, 100, (4, LENGTH))
        return LlamaForCausalLM(config), {"input_ids": tokens, "labels": tokens}

    return _borrowed(make)


@kind("transformers' ViT, random weights", opens="after")
def vit() -> Setup:
    def make() -> tuple[nn.Module, dict[str, Tensor]]:
        from transformers import ViTConfig, ViTForImageClassification

        config = ViTConfig(
            hidden_size=WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=2 * WIDTH,
            image_size=16,
            patch_size=4,
            num_labels=10,  # type: ignore[call-arg]
        )
        inputs = {"pixel_values": torch.randn(4, 3, 16, 16), "labels": torch.randint(0, 10, (4,))}
        return ViTForImageClassification(config), inputs

    return _borrowed(make)


@kind("transformers' ResNet, random weights")
def resnet() -> Setup:
    def make() -> tuple[nn.Module, dict[str, Tensor]]:
        from transformers import ResNetConfig, ResNetForImageClassification

        config = ResNetConfig(
            embedding_size=8,
            hidden_sizes=[8, 16],
            depths=[1, 1],
            layer_type="basic",
            num_labels=10,  # type: ignore[call-arg]
        )
        inputs = {"pixel_values": torch.randn(4, 3, 32, 32), "labels": torch.randint(0, 10, (4,))}
        return ResNetForImageClassification(config), inputs

    return _borrowed(make)
