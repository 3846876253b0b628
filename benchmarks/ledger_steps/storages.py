"""Kinds in which storages do what ops do not show: moved, resized, wrapped, or made before anyone looked."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import return_and_correct_aliasing
from torch.utils._pytree import tree_map_only

from benchmarks.ledger_steps.catalogue import WIDTH, Block, Setup, Stack, adamw, batch, kind
from dbbench.phases import phase


@kind("parameters moved to numpy's memory and back through p.data")
def offloaded_parameters() -> Setup:
    model, (x, y) = Stack(), batch()
    optimizer = adamw(model)
    away: list[dict[str, Any]] = [{} for _ in model.layers]

    def leave(index: int) -> None:
        with phase("swap"), torch.no_grad():
            for name, parameter in model.layers[index].named_parameters():
                away[index][name] = parameter.detach().numpy().copy()
                parameter.data = torch.empty(0)

    def come_back(index: int) -> None:
        with phase("swap"), torch.no_grad():
            for name, parameter in model.layers[index].named_parameters():
                parameter.data = torch.from_numpy(away[index].pop(name)).clone()

    def step() -> None:
        hidden = x
        for index, layer in enumerate(model.layers):
            others = [i for i in range(len(model.layers)) if i != index]
            for other in others:
                leave(other)
            hidden = layer(hidden.detach())
            F.cross_entropy(model.head(hidden), y).backward()
            for other in others:
                come_back(other)
        optimizer.step()
        optimizer.zero_grad()

    return Setup(step, {"model": model}, [optimizer], {"x": x, "y": y})


@kind("parameters replaced by other tensors through p.data, unmarked, the ledger opened late", opens="after")
def replaced_parameters() -> Setup:
    model, (x, y) = Stack(), batch()
    optimizer = adamw(model)
    shadow = {name: torch.randn_like(p) for name, p in model.named_parameters()}

    def swap() -> None:
        for name, parameter in model.named_parameters():
            parameter.data, shadow[name] = shadow[name], parameter.data

    def step() -> None:
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
        swap()
        with torch.no_grad():
            model(x)
        swap()

    return Setup(step, {"model": model}, [optimizer], {"x": x, "y": y})


class _Flat:
    """One block's parameters as views of one flat storage that is emptied while the block is idle (as FSDP does)."""

    def __init__(self, block: nn.Module) -> None:
        self.parameters = list(block.parameters())
        self.flat = torch.cat([p.detach().flatten() for p in self.parameters])
        self.bytes = self.flat.untyped_storage().nbytes()
        offset = 0
        for parameter in self.parameters:
            parameter.data = self.flat[offset : offset + parameter.numel()].view(parameter.shape)
            offset += parameter.numel()
        self.home: Any = None

    def empty(self) -> None:
        # by a list, because Tensor.numpy() makes a storage that cannot be resized any more
        self.home = np.asarray(self.flat.tolist(), dtype=np.float32)
        self.flat.untyped_storage().resize_(0)

    def fill(self) -> None:
        self.flat.untyped_storage().resize_(self.bytes)
        self.flat.copy_(torch.from_numpy(self.home))


@kind("storages emptied and filled in place by untyped_storage().resize_")
def resized_storages() -> Setup:
    blocks = nn.ModuleList(Block() for _ in range(3))
    head, (x, y) = nn.Linear(WIDTH, 10), batch()
    flats = [_Flat(block) for block in blocks]
    optimizer = torch.optim.SGD([*blocks.parameters(), *head.parameters()], lr=0.1)
    for flat in flats:
        flat.empty()

    def step() -> None:
        hidden = x
        for block, flat in zip(blocks, flats, strict=True):
            flat.fill()
            hidden = block(hidden.detach())
            F.cross_entropy(head(hidden), y).backward()
            optimizer.step()
            optimizer.zero_grad()
            flat.empty()

    def result() -> list[Tensor]:
        return [torch.from_numpy(flat.home) for flat in flats]

    return Setup(step, {"blocks": blocks, "head": head}, [optimizer], {"x": x, "y": y}, result=result)


@kind("tensors grown by resize_, results written into out=, and set_", opens="after")
def resized_by_ops() -> Setup:
    model, (x, y) = Stack(1), batch()
    optimizer, scratch, table = adamw(model), torch.empty(0), torch.zeros(4)

    def step() -> None:
        F.cross_entropy(model(x), y).backward()
        with torch.no_grad():
            torch.matmul(x, x.T, out=scratch)
            scratch.resize_(64, 64).zero_()
            table.set_(torch.zeros(128))  # type: ignore[call-overload]
            table.resize_(4)
            scratch.untyped_storage().resize_(0)
            scratch.resize_(0)
        optimizer.step()
        optimizer.zero_grad()

    return Setup(step, {"model": model}, [optimizer], {"x": x, "y": y})


class Halved(Tensor):
    """A wrapper that stands for ``high + low``, two tensors of its shape: it has no memory of its own."""

    high: Tensor
    low: Tensor

    @staticmethod
    def __new__(cls, high: Tensor, low: Tensor) -> Halved:
        return Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, high.shape, strides=high.stride(), dtype=high.dtype, device=high.device, requires_grad=False
        )

    def __init__(self, high: Tensor, low: Tensor) -> None:
        self.high, self.low = high, low

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["high", "low"], None

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, Tensor], _meta: None, _size: Any, _stride: Any) -> Halved:
        return Halved(inner["high"], inner["low"])

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run ``func`` on each half; what is not linear in its argument is only near the truth, which is enough."""
        kwargs = kwargs or {}
        halves = [
            func(*tree_map_only(Halved, pick, args), **tree_map_only(Halved, pick, kwargs))
            for pick in (lambda t: t.high, lambda t: t.low)
        ]
        out: Any
        if isinstance(halves[0], Tensor):
            out = Halved(*halves)
        elif isinstance(halves[0], (tuple, list)):
            out = type(halves[0])(Halved(a, b) if isinstance(a, Tensor) else a for a, b in zip(*halves, strict=True))
        else:
            return halves[0]
        return return_and_correct_aliasing(func, args, kwargs, out)


def _halved(tensor: Tensor) -> Halved:
    return Halved(tensor.detach() * 0.75, tensor.detach() * 0.25)


def _subclass_result(model: nn.Module) -> list[Tensor]:
    parts: list[Tensor] = []
    for parameter in model.parameters():
        data = parameter.detach()
        parts += [data.high, data.low] if isinstance(data, Halved) else [data]
    return parts


@kind("parameters of a wrapper subclass: two inner tensors, no memory of its own")
def subclass_parameter() -> Setup:
    model, (x, y) = nn.Linear(WIDTH, 10), batch()
    model.weight = nn.Parameter(_halved(model.weight))
    model.bias = nn.Parameter(_halved(model.bias))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, foreach=False)

    def step() -> None:
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()

    result = lambda: _subclass_result(model)  # noqa: E731
    return Setup(step, {"model": model}, [optimizer], {"x": x, "y": y}, result=result)


@kind("parameters of a wrapper subclass, the ledger opened late", opens="after")
def subclass_parameter_opened_late() -> Setup:
    return subclass_parameter()


@kind("activations of a wrapper subclass: the input wraps two tensors")
def subclass_activation() -> Setup:
    model, (x, y) = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.ReLU(), nn.Linear(4 * WIDTH, 10)), batch()
    optimizer = adamw(model)
    wrapped = _halved(x)

    def step() -> None:
        logits = model(wrapped)
        loss = logits.logsumexp(-1).mean()
        loss.backward()
        for parameter in model.parameters():
            if isinstance(parameter.grad, Halved):
                parameter.grad = parameter.grad.high + parameter.grad.low
        optimizer.step()
        optimizer.zero_grad()

    inputs = {"x": x, "y": y, "high": wrapped.high, "low": wrapped.low}
    return Setup(step, {"model": model}, [optimizer], inputs)


@kind("tensors made before the ledger opened, known to nobody but the caller", opens="after")
def made_before() -> Setup:
    model, (x, y) = Stack(), batch()
    optimizer = adamw(model)
    # never part of an op in the step, but alive all through it
    corpus = {"pages": [torch.randn(300), (torch.randn(40, 5),)], "idle": torch.zeros(1000)}
    used = torch.randn(WIDTH)

    def step() -> None:
        F.cross_entropy(model(x + used), y).backward()
        optimizer.step()
        optimizer.zero_grad()
        assert corpus

    return Setup(step, {"model": model}, [optimizer], {"x": x, "y": y})


@kind("batches that come from numpy, from lists and from torch.tensor within the step")
def batch_made_in_step() -> Setup:
    model, rng = Stack(), np.random.default_rng(0)
    optimizer = adamw(model)

    def step() -> None:
        shared = torch.from_numpy(rng.standard_normal((16, WIDTH), dtype=np.float32))
        copied = torch.tensor(rng.standard_normal((16, WIDTH)).tolist())
        labels = torch.as_tensor([i % 10 for i in range(16)])
        x = torch.from_dlpack(shared) + copied * torch.tensor(0.5)
        F.cross_entropy(model(x), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    return Setup(step, {"model": model}, [optimizer])


@kind("weight norm by parametrization, and a module cast and moved within the step", opens="after")
def parametrized() -> Setup:
    model, (x, y) = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 10)), batch()
    nn.utils.parametrizations.weight_norm(model[0])
    optimizer = adamw(model)

    def step() -> None:
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
        model.double()
        model.float()

    return Setup(step, {"model": model}, [optimizer], {"x": x, "y": y})


# torch.load reads a storage, then makes an empty tensor, then hands that the storage
@kind(
    "weights read back from a file within the step: copied in, then assigned",
    between=("aten.empty.memory_format",),
)
def loaded_weights() -> Setup:
    model, (x, y) = Stack(), batch()
    optimizer, file = adamw(model), io.BytesIO()
    torch.save(model.state_dict(), file)

    def step() -> None:
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
        file.seek(0)
        model.load_state_dict(torch.load(file))
        file.seek(0)
        model.load_state_dict(torch.load(file), assign=True)

    return Setup(step, {"model": model}, [optimizer], {"x": x, "y": y})
