"""What a loaded text is: documents, each cut into a part to train on, one to validate on and one held out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dbbench.errors import BadInput

Part = Literal["train", "validation", "test"]

#: What stands between two documents of a part.
SEPARATOR = "\n\n"


@dataclass(frozen=True)
class TextSet:
    """A text in three parts that share no character: each a list of pieces, one a document at most.

    ``sha256`` is that of the parts; ``source`` and ``licence`` say where they come from, without a path.
    """

    name: str
    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    sha256: str
    source: str
    licence: str

    def part(self, name: Part) -> str:
        """Return the pieces of a part as one string, `SEPARATOR` between them."""
        pieces: tuple[str, ...] = getattr(self, name)
        return SEPARATOR.join(pieces)

    @property
    def characters(self) -> tuple[str, ...]:
        """The distinct characters of all parts and of the separator, sorted."""
        found = set(SEPARATOR)
        for pieces in (self.train, self.validation, self.test):
            found.update(*pieces)
        return tuple(sorted(found))


def cut(document: str, test_fraction: float, validation_fraction: float) -> tuple[str, str, str]:
    """Return (train, validation, test) of a document: its tail is held out, and of the rest the tail validates.

    ``validation_fraction`` is of what is not held out.
    """
    rest = len(document) - round(len(document) * test_fraction)
    train = rest - round(rest * validation_fraction)
    return document[:train], document[train:rest], document[rest:]


def make_text_set(
    name: str,
    documents: Sequence[str],
    where: str,
    *,
    test_fraction: float,
    validation_fraction: float,
    source: str,
    licence: str,
) -> TextSet:
    """Cut every document into its three parts. Raises BadInput where a part of the whole would be empty."""
    parts = [cut(document, test_fraction, validation_fraction) for document in documents]
    train, validation, test = (tuple(piece for piece in pieces if piece) for pieces in zip(*parts, strict=True))
    return text_set(name, train, validation, test, where, source=source, licence=licence)


def text_set(
    name: str,
    train: Sequence[str],
    validation: Sequence[str],
    test: Sequence[str],
    where: str,
    *,
    source: str,
    licence: str,
) -> TextSet:
    """Return three parts as a `TextSet`. Raises BadInput where one is empty."""
    digest = hashlib.sha256()
    for part, pieces in (("train", train), ("validation", validation), ("test", test)):
        if not any(pieces):
            raise BadInput(f"{where}: {name}: the {part} part is empty")
        for piece in pieces:
            body = piece.encode()
            digest.update(f"{part} {len(body)}\n".encode() + body)
    return TextSet(name, tuple(train), tuple(validation), tuple(test), digest.hexdigest(), source, licence)
