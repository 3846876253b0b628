"""Random streams that do not disturb each other.

Every draw belongs to a stream named by what it is for: ``("noise", block, step)`` and so on. Two methods that share
a purpose share its numbers, and adding a draw of one purpose shifts no other. That is what lets a block trained
alone reproduce, bit for bit, the block of the joint run.
"""

from __future__ import annotations

import hashlib

import torch


class Streams:
    """Generators keyed by (seed, purpose, …), all on ``device``."""

    def __init__(self, seed: int, device: str = "cpu") -> None:
        self.seed = seed
        self.device = device

    def key(self, purpose: str, *key: object) -> int:
        """Return the 63-bit seed of the stream ``(purpose, *key)``."""
        digest = hashlib.blake2b(repr((self.seed, purpose, *key)).encode(), digest_size=8).digest()
        return int.from_bytes(digest, "little") >> 1

    def generator(self, purpose: str, *key: object) -> torch.Generator:
        """Return a fresh generator at the start of the stream ``(purpose, *key)``."""
        return torch.Generator(self.device).manual_seed(self.key(purpose, *key))
