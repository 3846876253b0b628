"""How large the numbers of a suite may be: far beyond what anybody trains, and far below what only hangs.

Each is a type for a field of a pydantic model, so that a larger number is one line which names the key and the limit.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

#: Layers, blocks, recurrences: a module is built for each.
Layers = Annotated[int, Field(ge=1, le=10_000)]
SomeLayers = Annotated[int, Field(ge=0, le=10_000)]
LayersOfBlocks = Annotated[list[Layers], Field(max_length=10_000)]
#: Numbers in a token, a hidden layer or a condition.
Width = Annotated[int, Field(ge=1, le=1 << 20)]
#: Pixels along a side, or channels.
Pixels = Annotated[int, Field(ge=1, le=1 << 16)]
#: Classes, or kinds of token.
Classes = Annotated[int, Field(ge=1, le=1 << 24)]
#: Tokens of a sequence.
SequenceLength = Annotated[int, Field(ge=1, le=1 << 24)]
#: Samples of a batch.
BatchSize = Annotated[int, Field(ge=1, le=1 << 24)]
#: Steps of a sampler, draws, evaluations: each is computed by itself.
Times = Annotated[int, Field(ge=1, le=100_000)]
SomeTimes = Annotated[int, Field(ge=0, le=100_000)]
#: Training steps, or windows of a text.
Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
#: A scale, a noise level, a weight.
Positive = Annotated[float, Field(gt=0, le=1e9, strict=False)]
NotNegative = Annotated[float, Field(ge=0, le=1e9, strict=False)]
