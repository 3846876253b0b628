"""Which of torch's ops have a FLOP formula here, which are free by the convention, and what the others could hide.

    python -m benchmarks.flops_coverage [--out reports/ledger/flops.md]      # needs expecttest, for torch's op database

Samples of torch's own op database are run, forward and backward, and the ops that reach the dispatcher are sorted:
those with a formula, those that are free, and those that are reported as uncounted. Then five models run a training
step each, and the work of the ops that are in no total is bounded from the sizes of what they read and write.
"""

from __future__ import annotations

import argparse
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from dbbench.measure.flops import FlopCount
from dbbench.report import text

#: A free op does at most so many operations for each element that it reads or writes: a norm or a softmax does about 5.
OPERATIONS_AN_ELEMENT = 5
#: Samples of each op that are run.
SAMPLES = 6

HEADER = """\
# What the FLOP count leaves out

Made by `python -m benchmarks.flops_coverage` with torch {torch}.

Counted are products, convolutions, attention, recurrent layers, distances, Fourier transforms and the common
factorizations and solves. Free by the field's convention is what does a bounded number of operations for each element
that it reads or writes: elementwise work, norms, softmax, losses, pooling, look-ups, sorting, copies, optimizer
updates. An op that is neither is *uncounted*: it is named, and every total of the step has ≥ before it.

## Torch's op database

{samples:,} samples of {entries} entries were run forward and, where they have one, backward. They reach {reached} ops:
{formulas} with a formula, {free} free, **{uncounted} uncounted**.

| uncounted op | reached from |
|---|---|
{rows}

## What the others could hide

A training step of five models with random weights, on CPU. *Free, at most*: {per} operations for each element that the
free ops read or write, which is more than nearly all of them do. *Share*: that over the whole. Without its own kernel
Mamba scans in elementwise ops, and the backward of each of its slices writes a tensor of all positions: of such a model
the FLOP count says little.

| model | counted | free ops called | free, at most | share | uncounted ops |
|---|--:|--:|--:|--:|---|
{models}
"""


class Sorted(TorchDispatchMode):
    """Sorts the ops that run: FLOPs of those with a formula, elements that the free ones touch, calls of the others."""

    def __init__(self) -> None:
        super().__init__()
        self.count = FlopCount()
        self.formulas: dict[Any, Any] = {}
        self.names: dict[str, set[str]] = defaultdict(set)
        self.flops = self.free_calls = self.free_elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        if func not in self.formulas:
            self.formulas[func] = self.count.formula(func)
        out = func(*args, **kwargs)
        formula, before = self.formulas[func], sum(self.count.uncounted.values())
        flops = formula(args, kwargs, out) if formula is not None else 0
        self.flops += flops
        name = f"{func.namespace}.{func._overloadpacket.__name__}"
        if sum(self.count.uncounted.values()) > before:
            self.names["uncounted"].add(name)
        elif flops:
            self.names["formula"].add(name)
        elif not func.is_view:
            self.free_calls += 1
            self.free_elements += sum(t.numel() for t in _tensors((args, tuple(kwargs.values()), out)))
        self.names["reached"].add(name)
        return out


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)


@dataclass
class Sweep:
    """What the op database reaches."""

    entries: int = 0
    samples: int = 0
    reached: set[str] = field(default_factory=set)
    formula: set[str] = field(default_factory=set)
    uncounted: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))


def sweep() -> Sweep:
    """Run the database's samples on CPU in float32."""
    from torch.testing._internal.common_methods_invocations import op_db

    found = Sweep()
    for entry in op_db:
        found.entries += 1
        samples = list(entry.sample_inputs("cpu", torch.float32, requires_grad=entry.supports_autograd))
        for sample in samples[:SAMPLES]:
            mode = Sorted()
            try:
                with mode:
                    outs = _tensors(entry(sample.input, *sample.args, **sample.kwargs))
                    wanted = [out.abs().sum() for out in outs if out.requires_grad]
                    if wanted:
                        torch.stack([value.to(torch.float64) for value in wanted]).sum().backward()
            except Exception:
                pass  # a sample that this build does not take, or that has no backward: what ran counts
            found.samples += 1
            found.reached |= mode.names["reached"]
            found.formula |= mode.names["formula"]
            for name in mode.names["uncounted"]:
                found.uncounted[name].add(entry.name)
    return found


class LanguageModel(nn.Module):
    """Two LSTM layers over characters."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(256, 128)
        self.layers = nn.LSTM(128, 256, 2, batch_first=True)
        self.head = nn.Linear(256, 256)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits (batch, length, 256) of ``tokens`` (batch, length)."""
        return self.head(self.layers(self.embedding(tokens))[0])


def models() -> Iterator[tuple[str, Callable[[], Tensor]]]:
    """Yield (name, forward to a loss) of five models at small sizes."""
    import transformers as peers

    images, tokens = torch.randn(4, 3, 64, 64), torch.randint(256, (4, 64))
    resnet = peers.ResNetModel(peers.ResNetConfig(embedding_size=32, hidden_sizes=[64, 128, 256, 512]))
    yield "ResNet, 50 layers, 64 × 64", lambda: resnet(images).last_hidden_state.square().mean()
    convnext = peers.ConvNextModel(peers.ConvNextConfig(hidden_sizes=[48, 96, 192, 384]))
    yield "ConvNeXt, depthwise, 64 × 64", lambda: convnext(images).last_hidden_state.square().mean()
    recurrent = LanguageModel()
    yield "LSTM, 2 layers of 256", lambda: recurrent(tokens).square().mean()
    mamba = peers.MambaModel(peers.MambaConfig(vocab_size=256, hidden_size=128, num_hidden_layers=4))
    yield "Mamba, 4 layers of 128", lambda: mamba(tokens).last_hidden_state.square().mean()
    shape = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4, "num_local_experts": 4}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    mixtral = peers.MixtralModel(peers.MixtralConfig(vocab_size=256, **shape, **heads))
    yield "Mixtral, 4 layers of 128, 4 experts", lambda: mixtral(tokens).last_hidden_state.square().mean()


def row(name: str, loss: Callable[[], Tensor]) -> str:
    """Run a training step's forward and backward and return its line of the table."""
    loss().backward()  # what is made once is no part of a step
    with Sorted() as mode:
        loss().backward()
    free = OPERATIONS_AN_ELEMENT * mode.free_elements
    named = Counter(mode.count.uncounted)
    ops = ", ".join(f"`{op}` × {calls}" for op, calls in sorted(named.items())) or "none"
    counts = f"{text.flops(mode.flops)} | {mode.free_calls:,} | {text.flops(free)}"
    return f"| {name} | {counts} | {text.share(free / (free + mode.flops))} | {ops} |"


def main() -> None:
    """Write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("reports/ledger/flops.md"))
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.manual_seed(0)
    found = sweep()
    rows = [f"| `{op}` | {', '.join(sorted(names))} |" for op, names in sorted(found.uncounted.items())]
    report = HEADER.format(
        torch=torch.__version__,
        samples=found.samples,
        entries=found.entries,
        reached=len(found.reached),
        formulas=len(found.formula),
        free=len(found.reached - found.formula - set(found.uncounted)),
        uncounted=len(found.uncounted),
        rows="\n".join(rows),
        per=OPERATIONS_AN_ELEMENT,
        models="\n".join(row(name, loss) for name, loss in models()),
    )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(report)
    print(report)


if __name__ == "__main__":
    main()
