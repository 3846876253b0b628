"""What the trained methods wrote: the same prompts in every variant, a line each, with how much of it repeats itself.

Texts are data of unknown content. They are shown on one line, cut, with what a table would hide made visible: a line's
end is ↵, spaces beside one another or at an end are ␣, and what cannot be printed is �.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from dbbench.errors import BadInput
from dbbench.report import text
from dbbench.report.document import Block, Cell, Grid, Section, data, figure, name, strong, words
from dbbench.report.run import Configuration, Run
from dbbench.results.frames import mean_sd
from dbbench.results.record import Document, Record, Samples

TITLE = "Samples"
#: Prompts shown, and the most characters of a prompt or a text.
PROMPTS, CHARACTERS = 2, 160
METRICS = ("distinct_1", "distinct_2", "repetition_4")
_HEADERS = ("distinct-1", "distinct-2", "repetition-4")
#: What the text itself has there, the same beside every variant.
HELD_OUT = "held_out"
WAYS = ("greedy", "temperature_1", HELD_OUT)
_NOTE = (
    "Each text goes on from the same prompt, decoded alike for every variant: greedy takes the most probable token, "
    "temperature 1 draws from the distribution as it is, at random numbers that the seed fixes. distinct-n is the "
    "share of n-grams of words that differ, over all texts; repetition-4 the share of a text's 4-grams of tokens that "
    "came before in it, the mean over texts. ↵ is the end of a line, ␣ one of several spaces; longer texts are cut."
)


class Written(NamedTuple):
    """A configuration, its first finished record with samples, and those."""

    configuration: Configuration
    record: Record
    samples: Samples


def written(run: Run) -> list[Written]:
    """Return what each configuration wrote; a file that cannot be read is among the run's problems, and left out."""
    found = []
    for configuration in run.configurations:
        for record in configuration.finished:
            try:
                samples = configuration.folder.read_samples(record.row.config_hash)
            except BadInput:
                continue
            if samples is not None and samples.documents:
                found.append(Written(configuration, record, samples))
                break
    return found


def samples(run: Run) -> Section | None:
    """Return a table for each of the first prompts that most variants share; None where nobody wrote anything."""
    wrote = written(run)
    if not wrote:
        return None
    seeds = sorted({one.record.row.seed for one in wrote})
    of = f"The texts are of seed {', '.join(map(str, seeds))}; the shares are means over seeds."
    blocks: list[Block] = [f"{_NOTE} {of}"]
    for place, prompt in enumerate(prompts(wrote)):
        said = data(one_line(prompt, CHARACTERS, keep_end=True))
        blocks += [f"{strong('From the prompt')} {said}", _texts(wrote, prompt, with_shares=not place)]
    return Section(TITLE, blocks)


def prompts(wrote: Sequence[Written]) -> list[str]:
    """Return the prompts to show: those that most configurations have, in the order of the first of them."""
    counts = Counter(prompt for one in wrote for prompt in dict.fromkeys(d.prompt for d in one.samples.documents))
    return sorted(counts, key=lambda prompt: -counts[prompt])[:PROMPTS]  # equal counts stay in their order


def one_line(words: str, most: int, keep_end: bool = False) -> str:
    """Return a text of unknown content on one line, at most ``most`` characters of it; of a prompt the end is kept."""
    cut = words if len(words) <= most else words[-most:] if keep_end else words[:most]
    line = cut.replace("\r\n", "\n").replace("\n", "↵").replace("\t", " ")
    line = re.sub(r"  +|^ | $", lambda found: "␣" * len(found[0]), line)
    line = "".join(c if c.isprintable() else "�" for c in line)
    return line if cut == words else f"…{line}" if keep_end else f"{line}…"


def _shares(configuration: Configuration, way: str) -> list[Cell]:
    cells = []
    for metric in METRICS:
        values = [m.value for r in configuration.finished for m in r.metrics if (m.name, m.variant) == (metric, way)]
        mean, _, _ = mean_sd(values)
        cells.append(figure(text.score, mean))
    return cells


def continuations(wrote: Sequence[Written], prompt: str) -> list[tuple[str, str, str]]:
    """Return (label, way of decoding, text on one line) of what each wrote on from ``prompt``, '' where it did not."""
    found = []
    for one in wrote:
        for way in _ways(one):
            document = _document(one, prompt, way)
            shown = "" if document is None else one_line(document.text, CHARACTERS)
            found.append((one.configuration.label, _said(way), shown))
    return found


def _texts(wrote: Sequence[Written], prompt: str, with_shares: bool) -> Grid:
    """Return a row a variant and way of decoding, the last what the text itself has; shares are over all prompts."""
    shares = [_shares(one.configuration, way) for one in wrote for way in _ways(one)]
    lines = continuations(wrote, prompt)
    rows = [
        [name(label), words(way), Cell(data(shown) if shown else text.MISSING), *(share if with_shares else ())]
        for (label, way, shown), share in zip(lines, shares, strict=True)
    ]
    for one in wrote:
        document = _document(one, prompt, HELD_OUT)
        if document is not None:
            itself = _shares(one.configuration, HELD_OUT) if with_shares else []
            rows.append([Cell("the text itself"), Cell(""), Cell(data(one_line(document.text, CHARACTERS))), *itself])
            break
    return Grid(["variant", "decoded", "text", *(_HEADERS if with_shares else ())], rows, left=3)


def _ways(one: Written) -> list[str]:
    return [way for way in dict.fromkeys(d.made_by for d in one.samples.documents) if way != HELD_OUT]


def _document(one: Written, prompt: str, way: str) -> Document | None:
    found = (d for d in one.samples.documents if (d.prompt, d.made_by) == (prompt, way))
    return next(found, None)


def _said(way: str) -> str:
    return way.replace("_", " ")
