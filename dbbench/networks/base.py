"""The contract of what is trained: a residual network that can be cut between any two of its layers.

A block is a run of layers. A method needs nothing else: it embeds, runs the layers that it wants in the order of
`Network.schedule`, reads features out, and puts a head on them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from dbbench import limits
from dbbench.errors import BadInput
from dbbench.streams import Streams


class BaseOptions(BaseModel):
    """Options of a network, task or method: unknown keys and loose types are refused."""

    model_config = ConfigDict(extra="forbid", strict=True)


Width = limits.Width | None


@dataclass
class State:
    """What flows through the layers: ``x`` of shape [batch, tokens, width], and what every layer may look at.

    ``context["condition"]`` is what a network conditions its layers on by itself (a denoiser's noise level and class).
    """

    x: Tensor
    context: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class InputShape:
    """What a task tells a network about its inputs. ``sequence_length`` counts tokens of a text task.

    ``kind`` says what a batch's inputs are: ``images`` [batch, channels, size, size]; ``tokens`` [batch,
    sequence_length] of numbers below ``classes``; ``masked_tokens``, a mapping of ``tokens`` [batch, sequence_length],
    where ``classes`` stands for the mask, and ``t`` [batch], the part of them that is masked on average; ``latents``, a
    mapping of ``noisy`` [batch, channels, size, size], ``c_noise`` [batch] and ``label`` [batch], where ``classes``
    stands for no label.
    """

    classes: int
    kind: Literal["images", "tokens", "masked_tokens", "latents"] = "images"
    channels: int | None = None
    image_size: int | None = None
    sequence_length: int | None = None


class Network(nn.Module, ABC):
    """A stack of residual layers with an embedding before it and a head behind it.

    Everything outside ``layers`` is *shared*: under a block-wise method it belongs to every block.
    """

    Options: ClassVar[type[BaseOptions]] = BaseOptions
    #: The family: by the name of a size a number for each of ``fields``, among which ``depth`` and ``width`` are.
    presets: ClassVar[Mapping[str, tuple[int, ...]]]
    fields: ClassVar[tuple[str, ...]]
    #: It is a denoiser: `embed` takes the noise level and conditions the layers on it.
    denoiser: ClassVar[bool] = False
    #: It runs a noisy stream of tokens beside a clean one: in one pass, or the clean one first (`embed_clean`).
    two_streams: ClassVar[bool] = False
    #: How many times `schedule` runs all the layers over.
    recurrences: int = 1
    layers: nn.ModuleList
    head: nn.Module
    width: int

    @classmethod
    def build(
        cls,
        size: str,
        shape: InputShape,
        options: BaseOptions,
        depth: int | None = None,
        condition_width: int | None = None,
    ) -> Self:
        """Build the preset ``size`` for inputs of ``shape``; ``depth`` replaces the preset's number of layers.

        With ``condition_width`` each layer and the head take a ``condition`` of shape [batch, condition_width], and
        the target token comes from outside through `embed`; a denoiser conditions its layers in any case.
        """
        numbers = cls.numbers(size, options, depth)
        if not cls.denoiser:
            numbers["condition_width"] = condition_width
        return cls(shape, **numbers)

    @classmethod
    def preset(cls, size: str) -> dict[str, int]:
        """Return the numbers of the preset ``size``, among them ``depth`` and ``width``; KeyError if unknown."""
        return dict(zip(cls.fields, cls.presets[size], strict=True))

    @classmethod
    def sizes(cls) -> Sequence[str]:
        """Return the names of the presets."""
        return tuple(cls.presets)

    @classmethod
    def numbers(cls, size: str, options: BaseOptions, depth: int | None = None) -> dict[str, Any]:
        """Return the preset ``size`` with ``depth`` and what ``options`` give in the place of its numbers.

        An option ``width`` keeps the width of a head and the MLP's ratio. BadInput if it is no multiple of the former.
        """
        numbers: dict[str, Any] = dict(cls.preset(size))
        given = options.model_dump(exclude_none=True)
        width = given.get("width")
        if width is not None and "heads" in numbers:
            head_width = numbers["width"] // numbers["heads"]
            if width % head_width:
                raise BadInput(
                    f"network.width: {width} is no multiple of {head_width}, the width of a head of '{size}'"
                )
            given["heads"] = width // head_width
            given["mlp_width"] = numbers["mlp_width"] * width // numbers["width"]
        if depth is not None:
            given["depth"] = depth
        return numbers | given

    @abstractmethod
    def embed(self, inputs: Any, target: Tensor | None = None) -> State:
        """Turn a batch into tokens.

        ``target`` is what a block-wise denoiser has of the target: [batch, width] in the place of the network's own
        read-out token, or [batch, tokens, width] behind the tokens.
        """

    def embed_clean(self, inputs: Any) -> State:
        """Return the tokens as a state of their own; the layers it runs through leave in it what `embed_noisy` needs.

        This and the next are for networks with ``two_streams``.
        """
        raise NotImplementedError

    def embed_noisy(self, target: Tensor, clean: State) -> State:
        """Return ``target`` [batch, tokens, width] as a state for the same layers, in the same order, that the state
        ``clean`` has run through: with them it gives what the two streams of `embed` give."""
        raise NotImplementedError

    def read_clean(self, x: Tensor, context: dict[str, Any]) -> Tensor:
        """Return the features of the clean stream, [batch, tokens, width], where `read` returns the noisy one's."""
        raise NotImplementedError

    @abstractmethod
    def read(self, x: Tensor, context: dict[str, Any]) -> Tensor:
        """Return the features that a head works on: [batch, width], or [batch, tokens, width] for an output a token."""

    @abstractmethod
    def make_head(self) -> nn.Module:
        """Return a fresh head, final norm included: ``head(features, condition=None)`` gives logits [batch, (tokens,)
        classes], or a denoiser's output in the shape of what it denoises."""

    def target_weight(self) -> nn.Parameter | None:
        """Return the embeddings [classes, width] of what is predicted, if the network has them already."""
        return None

    @property
    def depth(self) -> int:
        return len(self.layers)

    def schedule(self) -> list[int]:
        """Return the indices of the layers in the order they run (a recurrent network repeats its core's)."""
        return list(range(len(self.layers)))

    def run(self, state: State, indices: Sequence[int], condition: Tensor | None = None) -> Tensor:
        """Run the layers ``indices`` on ``state`` and return x, of the same shape."""
        x = state.x
        condition = state.context.get("condition") if condition is None else condition
        for index in indices:
            x = self.layers[index](x, state.context, condition)
        return x

    def outputs(self, x: Tensor, context: dict[str, Any], head: nn.Module | None = None) -> Tensor:
        """Return what ``head``, the network's own for None, makes of x behind a layer."""
        return (self.head if head is None else head)(self.read(x, context), context.get("condition"))

    def forward(self, inputs: Any) -> Tensor:
        """Return the outputs of the whole plain network."""
        state = self.embed(inputs)
        return self.outputs(self.run(state, self.schedule()), state.context)


def require_kind(name: str, shape: InputShape, kind: str) -> None:
    """Raise BadInput unless inputs of ``shape`` are what the network ``name`` takes."""
    if shape.kind != kind:
        raise BadInput(
            f"network.name: '{name}' takes {kind.replace('_', ' ')}, and this task has {shape.kind.replace('_', ' ')}"
        )
    needed = ("channels", "image_size") if kind in ("images", "latents") else ("sequence_length",)
    missing = [field for field in needed if getattr(shape, field) is None]
    if missing:
        raise BadInput(f"task.name: the shape of its {kind.replace('_', ' ')} says no {missing[0]}")


def initialise(module: nn.Module, streams: Streams, prefix: str = "") -> None:
    """Fill every parameter from a stream keyed by its own name, so that one more module shifts no other's numbers.

    A module with a method ``initialise_parameter(name, parameter, generator)`` decides for its own parameters;
    elsewhere matrices get Glorot-uniform values (Glorot & Bengio 2010, eq. 16), norm weights one, the rest zero.
    """
    for module_name, owner in module.named_modules():
        rule: Callable[[str, Tensor, torch.Generator], None] = getattr(owner, "initialise_parameter", _default_rule)
        for name, parameter in owner.named_parameters(recurse=False):
            full_name = ".".join(part for part in (prefix, module_name, name) if part)
            with torch.no_grad():
                rule(name, parameter, streams.generator("initialise", full_name))


def place(module: nn.Module, device: torch.device | str, dtype: torch.dtype) -> None:
    """Move ``module`` to ``device`` and its floating-point numbers to ``dtype``, in place.

    By assignment, since `torch.nn.Module.to` swaps fake tensors, and a swap is refused once anything watches them. What
    is on the meta device stays there.
    """
    for tensor in (*module.parameters(), *module.buffers()):
        where = tensor.device if tensor.is_meta else device
        tensor.data = tensor.data.to(where, dtype if tensor.is_floating_point() else tensor.dtype)


def _default_rule(name: str, parameter: Tensor, generator: torch.Generator) -> None:
    if parameter.dim() >= 2:
        nn.init.xavier_uniform_(parameter, generator=generator)
    elif name == "weight":
        parameter.fill_(1.0)
    else:
        parameter.zero_()
