"""From text to token numbers and back: single characters, or a byte-level BPE trained on the training part."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import Literal

import numpy as np

from dbbench.data.reading import import_optional
from dbbench.data.text_set import TextSet
from dbbench.errors import BadInput

Units = Literal["characters", "byte_pairs"]


class Vocabulary(ABC):
    """A list of tokens; ``decode(encode(text))`` is the text."""

    @property
    @abstractmethod
    def size(self) -> int:
        """The number of tokens."""

    @abstractmethod
    def encode(self, text: str) -> np.ndarray:
        """Return the token numbers of ``text``, int64 [tokens]."""

    @abstractmethod
    def decode(self, tokens: np.ndarray) -> str:
        """Return the text of token numbers."""

    @property
    @abstractmethod
    def characters_per_token(self) -> np.ndarray:
        """How many characters begin in each token, int64 [size]; over a text they sum to its length."""


class Characters(Vocabulary):
    """One token a character, in the order of their code points."""

    def __init__(self, characters: tuple[str, ...]) -> None:
        self.characters = characters
        self._points = np.array([ord(c) for c in characters], dtype=np.uint32)

    @property
    def size(self) -> int:
        return len(self.characters)

    def encode(self, text: str) -> np.ndarray:
        points = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
        numbers = np.minimum(np.searchsorted(self._points, points), len(self._points) - 1)
        strange = np.flatnonzero(self._points[numbers] != points)
        if len(strange):
            raise BadInput(f"the character {text[strange[0]]!r} is not in the vocabulary")
        return numbers.astype(np.int64)

    def decode(self, tokens: np.ndarray) -> str:
        return "".join(self.characters[token] for token in tokens)

    @property
    def characters_per_token(self) -> np.ndarray:
        return np.ones(self.size, dtype=np.int64)


class BytePairs(Vocabulary):
    """Byte-level byte-pair encoding (Sennrich et al. 2016, arXiv 1508.07909; over bytes as GPT-2 has it).

    It is trained on ``text`` alone; any text can be encoded, for every single byte is a token.
    """

    def __init__(self, text: str, size: int, where: str) -> None:
        library = import_optional("tokenizers", "tokenizers", "text", where)
        if size < 256:
            raise BadInput(f"{where}: vocabulary_size: {size} has no room for the 256 bytes")
        self._tokenizer = library.Tokenizer(library.models.BPE())
        self._tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
        self._tokenizer.decoder = library.decoders.ByteLevel()
        trainer = library.trainers.BpeTrainer(
            vocab_size=size,
            initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        self._tokenizer.train_from_iterator(text.splitlines(keepends=True), trainer)
        if self.size < size:
            raise BadInput(f"{where}: vocabulary_size: the training part yields {self.size} tokens, not {size}")

    @property
    def size(self) -> int:
        return int(self._tokenizer.get_vocab_size())

    def encode(self, text: str) -> np.ndarray:
        return np.array(self._tokenizer.encode(text).ids, dtype=np.int64)

    def decode(self, tokens: np.ndarray) -> str:
        return str(self._tokenizer.decode(tokens.tolist()))

    @cached_property
    def characters_per_token(self) -> np.ndarray:
        written = _bytes_as_written()
        tokens = (self._tokenizer.id_to_token(number) for number in range(self.size))
        # in UTF-8 the bytes 10xxxxxx go on with a character; every other begins one
        begins = [sum(written[letter] & 0xC0 != 0x80 for letter in token) for token in tokens]
        return np.array(begins, dtype=np.int64)


def _bytes_as_written() -> dict[str, int]:
    """Return the byte behind each letter of the alphabet that byte-level tokens are written in.

    Printable bytes of Latin-1 stand for themselves, the others in their order for the letters from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + place): byte for place, byte in enumerate(others)}


def make_vocabulary(text: TextSet, units: Units, size: int, where: str) -> Vocabulary:
    """Return the vocabulary of ``text``; ``size`` is that of byte pairs."""
    if units == "characters":
        return Characters(text.characters)
    return BytePairs(text.part("train"), size, where)
