"""A world of fake tensors that remembers: an op whose arguments look as they did before gives what it gave before.

A network repeats its layers and a rehearsal its steps, so that nine of ten ops of an estimate are repetitions. torch's
own memory of them costs more than the rest of the estimate: it describes every argument by seventeen properties and
takes each result through a general constructor. This one describes what an op of dense, real tensors can depend on,
and learns a result only where building it anew gives the very tensor that torch made; everything else is torch's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from dbbench.measure import private
from dbbench.measure.private import FakeTensor

#: From the op's positional arguments: what it returns.
Recipe = Callable[[tuple[Any, ...]], Any]

_DEVICE = torch.ops.prim.device.default
_PLAIN = (int, float, bool, str, type(None), torch.dtype, torch.device, torch.layout, torch.memory_format)
#: What makes a result depend on more than how the arguments look.
_UNSUITED = {
    torch.Tag.data_dependent_output,
    torch.Tag.dynamic_output_shape,
    torch.Tag.inplace_view,
}


class _Unknown(Exception):
    """An argument or a result that is not described here."""


class RememberingFakeMode(private.FakeTensorMode):
    """`FakeTensorMode` with a memory of its own for the time it is open; every result is torch's, made faster."""

    def __init__(self) -> None:
        super().__init__()
        self._recipes: dict[tuple[Any, ...], Recipe | None] = {}
        self._suited: dict[Any, bool] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # under a recorder, which has switched it off already: once an op is enough

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is _DEVICE and type(args[0]) is FakeTensor:
            return args[0].device
        kwargs = kwargs or {}
        suited = self._suited.get(func)
        if suited is None:
            suited = self._suited[func] = _is_suited(func)
        if not suited or torch.is_inference_mode_enabled():
            return super().__torch_dispatch__(func, types, args, kwargs)
        key: list[Any] = [func, torch.get_default_dtype(), private.default_device()]
        try:
            self._describe(args, key)
            if kwargs:
                key.extend(kwargs)
                self._describe(tuple(kwargs.values()), key)
        except _Unknown:
            return super().__torch_dispatch__(func, types, args, kwargs)
        name = tuple(key)
        recipe = self._recipes.get(name)
        if recipe is not None:
            return recipe(args)
        out = super().__torch_dispatch__(func, types, args, kwargs)
        if name not in self._recipes:
            try:
                self._recipes[name] = self._learn(args, kwargs, out)
            except _Unknown:
                self._recipes[name] = None
        return out

    def _describe(self, values: Any, into: list[Any]) -> None:
        """Append what an op may depend on: of a tensor its type, shape, strides and place in its storage."""
        for value in values:
            kind = type(value)
            if kind is FakeTensor:
                if (
                    value.fake_mode is not self
                    or value.constant is not None
                    or value.layout is not torch.strided
                    or value.is_neg()
                ):
                    raise _Unknown
                into += (value.dtype, value.shape, value.stride(), value.storage_offset(), value.requires_grad)
            elif kind in _PLAIN:
                into += (kind, value)  # 1, 1.0 and True are equal, and not the same argument
            elif kind is list or kind is tuple:
                into += (kind, len(value))
                self._describe(value, into)
            elif kind is torch.Generator:
                into.append(kind)  # it decides numbers, and there are none
            else:
                raise _Unknown

    def _learn(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> Recipe:
        if isinstance(out, (list, tuple)):
            kind = list if isinstance(out, list) else tuple
            parts = [self._learn(args, kwargs, item) for item in out]
            made = [part(args) for part in parts]
            if _sharing(made) != _sharing(out):
                raise _Unknown
            return lambda args: kind([part(args) for part in parts])
        if out is None:
            return _nothing
        for position, arg in enumerate(args):
            if arg is out:
                return lambda args: args[position]
        if any(out is value for value in kwargs.values()):
            raise _Unknown
        return self._learn_tensor(args, out)

    def _learn_tensor(self, args: tuple[Any, ...], out: Any) -> Recipe:
        if type(out) is not FakeTensor or out.constant is not None or out.layout is not torch.strided:
            raise _Unknown
        if out.requires_grad or out.is_neg() or out.dtype.is_complex:
            raise _Unknown
        shape, stride, dtype, offset = out.shape, out.stride(), out.dtype, out.storage_offset()
        device, attributes, key = out.fake_device, dict(vars(out)), private.storage_key(out)
        bases = [i for i, arg in enumerate(args) if isinstance(arg, Tensor) and private.storage_key(arg) == key]

        def fresh(args: tuple[Any, ...]) -> Tensor:
            plain = torch.empty_strided(shape, stride, dtype=dtype, device="meta")
            return private.fake_of(plain, device, attributes)

        def view(args: tuple[Any, ...]) -> Tensor:
            plain = torch.empty(0, dtype=dtype, device="meta")
            plain.set_(args[bases[0]].untyped_storage(), offset, shape, stride)
            return private.fake_of(plain, device, attributes)

        recipe = view if bases else fresh
        if not _same(recipe(args), out, on_one_storage=bool(bases)):
            raise _Unknown
        return recipe


def _nothing(args: tuple[Any, ...]) -> None:
    return None


def _is_suited(func: Any) -> bool:
    """Tell whether an op's result follows from how its arguments look, and is none of torch's special cases."""
    if not isinstance(func, torch._ops.OpOverload) or func.namespace != "aten":
        return False
    return _UNSUITED.isdisjoint(func.tags) and not func._overloadpacket.__name__.startswith(("lift", "set_", "resize"))


def _sharing(results: Any) -> list[int]:
    """Return for each result the place of the first one on its storage."""
    keys = [private.storage_key(item) if isinstance(item, Tensor) else None for item in results]
    return [keys.index(key) for key in keys]


def _same(made: Tensor, out: Tensor, on_one_storage: bool) -> bool:
    """Tell whether a tensor that was built anew cannot be told from the one that torch made."""
    return (
        (made.shape, made.stride(), made.dtype) == (out.shape, out.stride(), out.dtype)
        and made.storage_offset() == out.storage_offset()
        and made.untyped_storage().nbytes() == out.untyped_storage().nbytes()
        and (private.storage_key(made) == private.storage_key(out)) == on_one_storage
        and private.dispatch_keys(made) == private.dispatch_keys(out)
    )
