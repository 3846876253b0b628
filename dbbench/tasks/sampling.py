"""Text that a trained model writes on, decoded the same way for every method, and how much of it repeats itself.

Two ways of decoding: ``greedy`` takes the most probable token; ``temperature_1`` draws from the distribution as it is.
The draws invert the distribution function at uniform numbers that the seed fixes, so that two methods with the same
distribution write the same text.

A model of next tokens writes one after another. One of masked tokens fills masks in, from the time t at which so large
a part of the window is masked, down an even grid of times to 0. ``temperature_1`` is the ancestral sampling of MD4 (Shi
et al. 2024, arXiv 2406.04329, section 2): from t to the next time s < t a masked token is unmasked with probability
(α_s − α_t)/(1 − α_t), which with its linear schedule α_t = 1 − t is (t − s)/t, and is then drawn from p(· | what is not
masked, t). So the time at which a token is unmasked is uniform, which is how it is drawn here. ``greedy`` unmasks as
many at each step as every other, those whose most probable token is the most probable (MaskGIT's order, Chang et al.
2022, arXiv 2202.04200, without its noise), and takes that token.

A prompt is a state of that process: t begins at the part of the window that is masked, as in training, and not at 1.
Blocks that own only times above that have no say in a sample: of three, with prompts of half a window, the first.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence

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
        text[0, :, place] = p[0].argmax(dim=-1)
        text[1, :, place] = _drawn(p[1], uniform[place])
    return text


def unmasked(
    predict: Callable[[Mapping[str, Tensor]], Tensor],
    prompts: Tensor,
    length: int,
    mask: int,
    steps: int,
    generator: torch.Generator,
) -> Tensor:
    """Return ``prompts`` [prompts, tokens] with the ``mask`` behind them, up to ``length``, filled in within ``steps``
    steps of equal length in time: [decodings, prompts, length].

    ``predict`` maps {tokens [rows, length], t [rows]} to log-probabilities [rows, length, vocabulary] of every token.
    """
    count, known = prompts.shape
    masks = length - known
    text = torch.full((len(DECODINGS), count, length), mask, dtype=prompts.dtype, device=prompts.device)
    text[..., :known] = prompts
    greedy, drawn = text[..., known:]
    uniform = torch.rand(2, count, masks, 1, generator=generator, device=generator.device, dtype=torch.float64)
    step_of = (steps * uniform[0, ..., 0]).long()
    for step in range(steps):
        t = torch.full((len(DECODINGS) * count,), masks / length * (1 - step / steps), device=prompts.device)
        p = predict({"tokens": text.flatten(0, 1), "t": t})[:, known:].unflatten(0, text.shape[:2])
        most, which = p[0].max(dim=-1)
        number = masks * (step + 1) // steps - masks * step // steps
        chosen = most.masked_fill(greedy != mask, -torch.inf).topk(number, dim=-1).indices
        greedy.scatter_(-1, chosen, which.gather(-1, chosen))
        drawn.copy_(torch.where(step_of == step, _drawn(p[1], uniform[1]), drawn))
    return text


def _drawn(p: Tensor, uniform: Tensor) -> Tensor:
    """Return the tokens [...] at which the distribution functions of the log-probabilities ``p`` [..., vocabulary] pass
    the ``uniform`` numbers [..., 1]."""
    below = p.double().exp().cumsum(dim=-1)
    return (below < uniform * below[..., -1:]).sum(dim=-1)


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
