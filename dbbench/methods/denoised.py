"""What a block of DiffusionBlocks denoises, by the kind of the task's targets.

=========== ===================================== ================================== ===============================
targets     y                                     z enters                           D(z; σ)
=========== ===================================== ================================== ===============================
a class     its embedding, [batch, width]         in the place of the read-out token in feature space, before the head
next tokens their embeddings, [batch, tokens,     as a second stream of tokens       in feature space, before the head
            width], normalised
latents     themselves, [batch, channels, …]      as the network's input             behind the network's output
=========== ===================================== ================================== ===============================

The loss of the first two is cross-entropy, that of the last the squared distance of D from y; both are weighted by w(σ)
where the option ``weighting`` says so.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dbbench.diffusion.precondition import Preconditioning, precondition
from dbbench.errors import BadInput
from dbbench.networks.base import Network, State
from dbbench.networks.parts import NoiseEmbedding
from dbbench.tasks.base import Batch, Task

#: Runs a block's layers on a state under a condition.
Run = Callable[[State, Tensor | None], Tensor]


class TargetTable(nn.Module):
    """The embeddings e_k of the classes, [classes, width]; rows start with norm about ``norm``.

    ``norm`` is a tensor because autograd would keep a Python number as one that no ledger sees made. With ``shared``
    the table is one that the network has already.
    """

    norm: Tensor

    def __init__(self, classes: int, width: int, norm: float, shared: nn.Parameter | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, width)) if shared is None else shared
        self.register_buffer("norm", torch.tensor(norm))

    def forward(self, raw: bool = False) -> Tensor:
        """Return e_k, [classes, width]: rows of norm ``norm``, or as they were learnt for ``raw``."""
        weight = self.weight.float()
        return self.norm * (weight if raw else F.normalize(weight, dim=-1))

    def rows(self, numbers: Tensor) -> Tensor:
        """Return e_k of ``numbers`` [batch, …] alone, [batch, …, width], of norm ``norm``: a vocabulary is long."""
        return self.norm * F.normalize(F.embedding(numbers, self.weight).float(), dim=-1)

    def initialise_parameter(self, name: str, parameter: Tensor, generator: torch.Generator) -> None:
        """Rows are normal with standard deviation 1/√width."""
        nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5, generator=generator)


class Front(nn.Module):
    """What surrounds the layers: embedding and head of ``shell``; the noise embedding and the table of targets, but for
    a network that is a denoiser by itself."""

    def __init__(self, shell: Network, noise: NoiseEmbedding | None, targets: TargetTable | None) -> None:
        super().__init__()
        self.shell, self.noise, self.targets = shell, noise, targets


def over(sigma: Tensor, like: Tensor) -> Tensor:
    """Return ``sigma`` [batch] in a shape that broadcasts over ``like`` [batch, …]."""
    return sigma.view(-1, *[1] * (like.dim() - 1))


class Denoised(ABC):
    """How z is made of a batch, and how a front and a block turn it into outputs. ``plain`` leaves D = F."""

    def __init__(self, task: Task, sigma_data: float, plain: bool) -> None:
        self.task, self.sigma_data, self.plain = task, sigma_data, plain

    @abstractmethod
    def shape(self, inputs: Any, width: int) -> tuple[int, ...]:
        """Return the shape of y and z for a batch's ``inputs``."""

    @abstractmethod
    def clean(self, batch: Batch, front: Front) -> Tensor:
        """Return y, [batch, …]."""

    @abstractmethod
    def wanted(self, batch: Batch) -> Tensor:
        """Return what the task's loss compares the outputs with."""

    @abstractmethod
    def asked(self, front: Front, inputs: Any, sigma: Tensor, run: Run) -> Callable[[Tensor], Tensor]:
        """Return what the block behind ``run`` makes of a z at ``sigma`` [batch]: logits, or D.

        What does not depend on z is done once, however many are asked about.
        """


def combined(c: Preconditioning, z: Tensor, given: Tensor) -> Tensor:
    """Return D = c_skip·z + c_out·F of a network's F, ``given``."""
    return over(c.c_skip, z) * z + over(c.c_out, z) * given


class DenoisedClass(Denoised):
    """One class a sample, by its embedding."""

    def shape(self, inputs: Any, width: int) -> tuple[int, ...]:
        return len(inputs), width

    def clean(self, batch: Batch, front: Front) -> Tensor:
        assert front.targets is not None
        return F.embedding(batch.targets, front.targets())

    def wanted(self, batch: Batch) -> Tensor:
        return batch.targets

    def asked(self, front: Front, inputs: Any, sigma: Tensor, run: Run) -> Callable[[Tensor], Tensor]:
        c = precondition(sigma, self.sigma_data)
        condition = self.condition(front, c)

        def logits(z: Tensor) -> Tensor:
            state = front.shell.embed(inputs, self.scaled(front, c, z))
            return self.head(front, c, z, front.shell.read(run(state, condition), state.context), condition)

        return logits

    def condition(self, front: Front, c: Preconditioning) -> Tensor:
        """Return the condition of every layer at a noise level, [batch, condition_width]."""
        assert front.noise is not None
        return front.noise(c.c_noise)

    def scaled(self, front: Front, c: Preconditioning, z: Tensor) -> Tensor:
        """Return c_in·z in the network's type."""
        return (over(c.c_in, z) * z).to(next(front.shell.head.parameters()).dtype)

    def head(self, front: Front, c: Preconditioning, z: Tensor, features: Tensor, condition: Tensor) -> Tensor:
        """Return the logits of D, of what is read of the noisy stream behind the block."""
        if not self.plain:
            features = combined(c, z, features).to(next(front.shell.head.parameters()).dtype)
        return front.shell.head(features, condition)


class DenoisedTokens(DenoisedClass):
    """Every next token, by its normalised embedding; the network runs a clean and a noisy stream of tokens.

    What each way keeps of a block of n Llama layers for its backward, in float32: with S = batch · tokens · width · 4
    bytes for one stream and r = mlp_width / width, a plain layer keeps 10 + 4r of them (`dbbench.networks.llama`), and
    one with a condition 14 + 4r, for it keeps what it modulates twice and what its gates multiply.

    ================= ================================================= =============================================
    kept of           concatenated                                      two_pass
    ================= ================================================= =============================================
    every layer       2 · (14 + 4r) S, the streams side by side         the same, and 2 S: keys and values once by the
                                                                        clean stream, once before the noisy one's
    the last layer    no less: the clean stream runs to its end,        (14 + 4r) S of the noisy stream, 2 S for the
                      though nothing reads it                           clean keys and values, and 4 S to get at them
    a row of numbers  silu(condition), two scales and two gates once    twice, but in the last layer's clean stream
    once a step       a mask of 4 · tokens² numbers                     one of 2 · tokens²
    ================= ================================================= =============================================

    So two passes keep 2 (n - 1) S - (8 + 4r) S more: less for a block of up to ten layers or so. A clean loss needs the
    clean stream to its end, and the saving of the last layer is gone. tests/methods/test_two_ways.py counts the bytes.

    With ``two_pass`` the clean stream runs by itself, and the noisy one then uses its keys and values. Either way both
    get the condition of the noise level, so that the two ways are one function. The price of that choice: the clean
    stream is another at every level, so that what is kept of it serves any number of z, but at one level alone.
    """

    def __init__(self, task: Task, sigma_data: float, plain: bool, two_pass: bool) -> None:
        super().__init__(task, sigma_data, plain)
        self.two_pass = two_pass

    def shape(self, inputs: Any, width: int) -> tuple[int, ...]:
        return *inputs.shape, width

    def clean(self, batch: Batch, front: Front) -> Tensor:
        assert front.targets is not None
        return front.targets.rows(batch.targets)

    def asked(self, front: Front, inputs: Any, sigma: Tensor, run: Run) -> Callable[[Tensor], Tensor]:
        if not self.two_pass:
            return super().asked(front, inputs, sigma, run)
        c = precondition(sigma, self.sigma_data)
        condition = self.condition(front, c)
        clean = front.shell.embed_clean(inputs)
        run(clean, condition)

        def logits(z: Tensor) -> Tensor:
            state = front.shell.embed_noisy(self.scaled(front, c, z), clean)
            return self.head(front, c, z, front.shell.read(run(state, condition), state.context), condition)

        return logits

    def both(self, front: Front, inputs: Any, z: Tensor, sigma: Tensor, run: Run) -> tuple[Tensor, Tensor]:
        """Return the logits of the noisy stream as `asked` does, and those that the clean stream has for the same
        tokens: F's, without a z to combine them with."""
        c = precondition(sigma, self.sigma_data)
        condition = self.condition(front, c)
        if self.two_pass:
            clean = front.shell.embed_clean(inputs)
            x_clean = run(clean, condition)
            noisy = front.shell.embed_noisy(self.scaled(front, c, z), clean)
            x = run(noisy, condition)
        else:
            noisy = clean = front.shell.embed(inputs, self.scaled(front, c, z))
            x = x_clean = run(noisy, condition)
        logits = self.head(front, c, z, front.shell.read(x, noisy.context), condition)
        return logits, front.shell.head(front.shell.read_clean(x_clean, clean.context), condition)


class DenoisedLatents(Denoised):
    """The latents themselves, by a network that takes the noise level."""

    def shape(self, inputs: Any, width: int) -> tuple[int, ...]:
        return tuple(inputs["noisy"].shape)

    def clean(self, batch: Batch, front: Front) -> Tensor:
        assert batch.clean is not None
        return batch.clean

    def wanted(self, batch: Batch) -> Tensor:
        assert batch.clean is not None
        return batch.clean

    def asked(self, front: Front, inputs: Any, sigma: Tensor, run: Run) -> Callable[[Tensor], Tensor]:
        c = precondition(sigma, self.sigma_data)

        def denoised(z: Tensor) -> Tensor:
            state = front.shell.embed(inputs | {"noisy": over(c.c_in, z) * z, "c_noise": c.c_noise})
            given = front.shell.outputs(run(state, None), state.context)
            return given if self.plain else combined(c, z, given)

        return denoised

    def start(self, inputs: Any) -> tuple[Tensor, Tensor]:
        """Return (z, σ) of a batch's ``inputs``."""
        sigma = (4 * inputs["c_noise"]).exp()
        return inputs["noisy"] / over(precondition(sigma, self.sigma_data).c_in, inputs["noisy"]), sigma

    def function_of(self, denoised: Tensor, z: Tensor, sigma: Tensor) -> Tensor:
        """Return the F that belongs to ``denoised``, which is what the task's targets are: (D − c_skip·z)/c_out."""
        c = precondition(sigma, self.sigma_data)
        return (denoised - over(c.c_skip, z) * z) / over(c.c_out, z)


def denoised_for(task: Task, network: Network, options: Any) -> Denoised:
    """Return how the targets of ``task`` are denoised, as the ``options`` of `DiffusionBlocks` say.

    BadInput for masked tokens, and for an option of a kind of targets that the task does not have.
    """
    o, kind, plain = options, task.shape.kind, options.output == "plain"
    if kind not in ("images", "tokens", "latents"):
        raise BadInput("method: 'diffusion_blocks' has no noise for masked tokens; 'masked_blocks' has")
    for key, given in {"streams": o.streams != "concatenated", "clean_weight": o.clean_weight > 0}.items():
        if given and not (kind == "tokens" and network.two_streams):
            raise BadInput(f"{key}: is for text, and a network that runs a clean stream beside the noisy one")
    for key, given in {"shown_draws": o.shown_draws, "inference_draws": o.inference_draws > 1}.items():
        if given and kind == "latents":
            raise BadInput(f"{key}: is for what a chain of blocks draws, and noisy latents are denoised as they come")
    if kind == "tokens":
        return DenoisedTokens(task, o.sigma_data, plain, o.streams == "two_pass")
    return (DenoisedClass if kind == "images" else DenoisedLatents)(task, o.sigma_data, plain)
