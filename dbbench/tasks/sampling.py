"""Text that a trained model writes on, decoded the same way for every method, and how much of it repeats itself.

Two ways of decoding: ``greedy`` takes the most probable token; ``temperature_1`` draws from the distribution as it is.
The draws invert the distribution function at uniform numbers that the seed fixes, so that two methods with the same
distribution write the same text.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

DECODINGS = ("greedy", "temperature_1")


def continued(predict: Callable[[Tensor], Tensor], prompts: Tensor, length: int, generator: torch.Generator) -> Tensor:
    """Return ``prompts`` [prompts, tokens] written on to ``length`` tokens: [decodings, prompts, length].

    ``predict`` maps tokens [rows, length - 1] to log-probabilities [rows, length - 1, vocabulary] of each next token.
    Behind the last that is known stand zeros, so that every call has the same shape.
    """
    count, known = prompts.shape
    text = torch.zeros(len(DECODINGS), count, length, dtype=prompts.dtype, device=prompts.device)
    text[..., :known] = prompts
    uniform = torch.rand(length, count, 1, generator=generator, device=generator.device, dtype=torch.float64)
    for place in range(known, length):
        p = predict(text[..., :-1].flatten(0, 1))[:, place - 1].unflatten(0, text.shape[:2])
        below = p[1].double().exp().cumsum(dim=-1)
        text[0, :, place] = p[0].argmax(dim=-1)
        text[1, :, place] = (below < uniform[place] * below[:, -1:]).sum(dim=-1)
    return text


def distinct(texts: Sequence[str], n: int) -> float | None:
    """Return distinct-n (Li et al. 2016, arXiv 1510.03055): different n-grams of words over all texts, by their number.

    None where there is no n-gram.
    """
    found = [gram for text in texts for gram in _ngrams(text.split(), n)]
    return len(set(found)) / len(found) if found else None


def repetition(texts: Sequence[Sequence[Hashable]], n: int) -> float | None:
    """Return the share of a text's n-grams of tokens that came before in it, the mean over texts that have any.

    This is seq-rep-n (Welleck et al. 2020, arXiv 1908.04319, section 6.1). It is of tokens, since a model that writes
    one letter for ever has no second word.
    """
    shares = [1 - len(set(grams)) / len(grams) for grams in (_ngrams(text, n) for text in texts) if grams]
    return sum(shares) / len(shares) if shares else None


def _ngrams(items: Sequence[Hashable], n: int) -> list[tuple[Hashable, ...]]:
    return list(zip(*(items[i:] for i in range(n)), strict=False))
