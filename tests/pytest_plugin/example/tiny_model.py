"""A stack of blocks to train, and its step with and without checkpointing."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

WIDTH, BATCH = 64, 512


class Block(nn.Module):
    """Two maps with a GELU between them, added to what came in."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.act, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(self.act(self.up(x)))


class TinyModel(nn.Module):
    """``depth`` blocks and a head with one output."""

    def __init__(self, depth: int = 4, recompute: bool = False) -> None:
        super().__init__()
        self.recompute = recompute
        self.blocks = nn.ModuleList(Block() for _ in range(depth))
        self.head = nn.Linear(WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.recompute else block(x)
        return self.head(x)


def make_step(depth: int = 4, recompute: bool = False) -> tuple[nn.Module, torch.optim.Optimizer, Callable[[], None]]:
    """Make a model, its optimizer and a function that trains it once."""
    model = TinyModel(depth, recompute)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    batch = torch.randn(BATCH, WIDTH)

    def step() -> None:
        model(batch).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    return model, optimizer, step
