r"""The tables of a paper: booktabs fragments to ``\input``, and a document that shows them.

Names and error texts come from suites and exceptions, so every one of their characters is set as it is; a fragment is
pure ASCII and needs no package but booktabs. A figure is bold only where nothing else explains that it is the best:
bytes and FLOPs are exact, a metric has to be told from every other by a test.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from dbbench.files import write_atomically
from dbbench.report import text
from dbbench.report.document import plain
from dbbench.report.figure_style import evenly
from dbbench.report.part_tables import PART_NAMES, part_bytes, shown_parts
from dbbench.report.run import Run
from dbbench.report.sample_texts import CHARACTERS, continuations, one_line, prompts, written
from dbbench.report.tables import MAIN_COLUMNS, metric_name, rest_bytes
from dbbench.report.verdict import LEVEL, welch
from dbbench.report.ways import columns_of, grouped_by_headline, header_of
from dbbench.results.frames import mean_sd

_ROWS = 60  # what a page holds
_MISSING = "--"
#: What two rows must share for the better of them to be the best of something.
_SAME_WORK = ("task", "network", "network_size", "depth", "batch_size", "precision", "budget", "budget_value")

_SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "%": r"\%", "#": r"\#", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "`": r"\textasciigrave{}", "'": r"\textquotesingle{}", '"': r"\char34{}",
    "-": "{-}", ",": "{,}", "?": "{?}", "!": "{!}", "[": "{[}", "]": "{]}", "*": "{*}",
    "–": "--", "—": "---", "−": "$-$", "±": r"$\pm$", "×": r"$\times$", "÷": r"$\div$", "·": r"$\cdot$",
    "…": r"\ldots{}", "→": r"$\to$", "←": r"$\leftarrow$", "≤": r"$\leq$", "≥": r"$\geq$", "≠": r"$\neq$",
    "≈": r"$\approx$", "√": r"$\surd$", "∞": r"$\infty$", "°": r"$^\circ$", "²": "$^2$", "³": "$^3$", "µ": r"$\mu$",
    "‘": "`", "’": "'", "“": "``", "”": "''", "«": r"$\ll$", "»": r"$\gg$", "ß": r"\ss{}", "æ": r"\ae{}", "Æ": r"\AE{}",
    "↓": r"$\downarrow$", "↵": r"$\hookleftarrow$", "␣": r"\textvisiblespace\allowbreak{}",
    "ø": r"\o{}", "Ø": r"\O{}", "ł": r"\l{}", "Ł": r"\L{}", "\u00a0": "~",
}  # fmt: skip
_GREEK = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "varepsilon", "ζ": "zeta", "η": "eta", "θ": "theta",
    "ι": "iota", "κ": "kappa", "λ": "lambda", "μ": "mu", "ν": "nu", "ξ": "xi", "π": "pi", "ρ": "rho", "σ": "sigma",
    "τ": "tau", "υ": "upsilon", "φ": "varphi", "χ": "chi", "ψ": "psi", "ω": "omega", "Γ": "Gamma", "Δ": "Delta",
    "Θ": "Theta", "Λ": "Lambda", "Ξ": "Xi", "Π": "Pi", "Σ": "Sigma", "Φ": "Phi", "Ψ": "Psi", "Ω": "Omega",
}  # fmt: skip
_ACCENTS = {
    "\u0300": r"\`", "\u0301": r"\'", "\u0302": r"\^", "\u0303": r"\~", "\u0308": r"\"", "\u0304": r"\=",
    "\u0307": r"\.", "\u0327": r"\c", "\u030a": r"\r", "\u030b": r"\H", "\u030c": r"\v", "\u0306": r"\u",
}  # fmt: skip


def escaped(words: Any) -> str:
    """Text as LaTeX sets it literally, on one line and in ASCII; a character that has no command becomes [U+4E2D]."""
    return "".join(map(_character, text.printable(words)))


def _character(c: str) -> str:
    if c in _SPECIAL:
        return _SPECIAL[c]
    if c.isascii():
        return c
    if c in _GREEK:
        return rf"$\{_GREEK[c]}$"
    base, *marks = list(unicodedata.normalize("NFD", c))
    if len(marks) == 1 and marks[0] in _ACCENTS and base.isascii() and base.isalpha():
        return f"{_ACCENTS[marks[0]]}{{{base}}}"
    plain = unicodedata.normalize("NFKC", c)
    if plain != c:
        return "".join(map(_character, plain))
    return f"{{[}}U+{ord(c):04X}{{]}}"


def write_tables(folder: Path, run: Run, table: pd.DataFrame) -> None:
    """Write ``tables/memory.tex``, ``cost.tex``, ``result.tex`` and the others of a paper below ``folder``.

    ``parts.tex`` has the peak by part of the network, ``ways.tex`` the ways of predicting, ``samples.tex`` texts,
    ``failed.tex`` what did not finish, and ``preview.tex`` shows them all. ``table`` is the run's comparison. A table
    without a row is not written, and an older one of that name is removed.
    """
    finished, failed = table[table["status"] == "ok"], table[table["status"] != "ok"]
    written = {
        "memory": ("Memory at the peak of a training step, MiB.", memory(run, finished)),
        "cost": ("What a training step costs.", cost(run, finished)),
        "result": ("What is learnt, and what it takes.", result(run, finished)),
        "parts": ("The peak by part of the network, MiB.", parts(run, finished)),
        "ways": ("Where the figure of merit comes from.", ways_of_predicting(run, finished)),
        "samples": ("What is written on from one prompt.", samples(run)),
        "failed": ("Cells that did not finish.", failures(failed)),
    }
    for name, (_, body) in written.items():
        path = folder / "tables" / f"{name}.tex"
        if body:
            write_atomically(path, body.encode("ascii"))
        else:
            path.unlink(missing_ok=True)
    shown = {name: caption for name, (caption, body) in written.items() if body}
    write_atomically(folder / "tables" / "preview.tex", _preview(run, shown).encode("ascii"))


def memory(run: Run, finished: pd.DataFrame) -> str:
    """Return the split at the peak; the smallest peak is bold, being exact."""
    header = ["variant", "peak", r"$\times$ backprop", *(column.removesuffix("_bytes") for column in MAIN_COLUMNS)]
    best = _smallest(run, finished, "peak_bytes")

    def cells(row: Any) -> list[str]:
        split = [_mib(row[column]) for column in MAIN_COLUMNS]
        return [_bold(_mib(row["peak_bytes"]), row, best), _ratio(row["peak_ratio"]), *split, _mib(rest_bytes(row))]

    note = "Live tensor bytes at the largest peak over seeds, by role, in MiB; exact. " + _bold_note(run, "peak", best)
    return _tabular(finished, [*header, "rest"], cells, note)


def cost(run: Run, finished: pd.DataFrame) -> str:
    """Return FLOPs and speed; the smallest counts of FLOPs are bold, speed never is."""
    header = ["variant", "FLOPs a step", r"$\times$ backprop", "FLOPs of the training", r"$\times$ backprop"]
    header += ["samples/s", r"$\times$ backprop"]
    step, whole = (_smallest(run, finished, column) for column in ("flops_step", "flops_train_total"))

    def cells(row: Any) -> list[str]:
        return [
            _bold(escaped(text.flops(row["flops_step"], row["uncounted_ops"])), row, step),
            _ratio(row["flops_step_ratio"]),
            _bold(escaped(text.flops(row["flops_train_total"], row["uncounted_ops"])), row, whole),
            _ratio(row["flops_train_total_ratio"]),
            escaped(text.whole(row["samples_per_second"])),
            _ratio(row["speed_ratio"]),
        ]

    note = (
        "FLOPs are counted, and exact; a ratio of samples/s is the median over paired rounds. Speed has noise and is "
        "never bold. " + _bold_note(run, "number of FLOPs", step | whole)
    )
    return _tabular(finished, header, cells, note)


def result(run: Run, finished: pd.DataFrame) -> str:
    """Return the metric, mean ± sd (n), with the peak; the best metric is bold where a test tells it from every other.

    The note names the test, or says why nothing is bold.
    """
    best, why = told_best(run, finished)
    smallest = _smallest(run, finished, "peak_bytes")
    header = ["variant", escaped(metric_name(finished)), "$n$", "peak, MiB", r"$\times$ backprop"]

    def cells(row: Any) -> list[str]:
        mean, sd = escaped(text.score(row["metric_mean"])), row["metric_sd"]
        spread = "" if pd.isna(sd) else rf" $\pm$ {text.score(sd)}"
        count = _MISSING if pd.isna(row["metric_n"]) else str(row["metric_n"])
        peak = _bold(_mib(row["peak_bytes"]), row, smallest)
        return [_bold(mean, row, best) + spread, count, peak, _ratio(row["peak_ratio"])]

    note = rf"Mean $\pm$ one sample standard deviation over $n$ seeds. {why} " + _bold_note(run, "peak", smallest)
    return _tabular(finished, header, cells, note)


def parts(run: Run, finished: pd.DataFrame) -> str:
    """Return the peak by part of the network, '' where no peak has its layers apart."""
    sample = [run.configuration(label) for label in evenly(list(finished["variant"]), _ROWS)]
    found = {c.label: of for c in sample if (of := c.parts[0]) is not None}
    if not any(of["layers"] for of in found.values()):
        return ""
    shown = shown_parts(found.values())
    header = ["variant", "blocks", "peak", *(PART_NAMES[part] for part in shown)]

    def cells(row: Any) -> list[str]:
        of = found.get(row["variant"])
        split = [_MISSING if of is None else _mib(part_bytes(of, part)) for part in shown]
        return [escaped(text.whole(row["blocks"])), _mib(row["peak_bytes"]), *split]

    note = (
        "Live tensor bytes at the peak, in MiB; exact. Blocks divide the layers alone: embedding, head and logits are "
        "there whole for any number of blocks."
    )
    return _tabular(finished, header, cells, note)


def ways_of_predicting(run: Run, finished: pd.DataFrame) -> str:
    """Return the headline by way of predicting; '' where it is one number a variant, or they have different ones."""
    groups = grouped_by_headline(run)
    ways = columns_of(groups[0]) if len(groups) == 1 else []
    if len(ways) < 2:
        return ""
    by_label = {one.configuration.label: one for one in groups[0]}
    headline = groups[0][0].headline

    def cells(row: Any) -> list[str]:
        found = by_label[row["variant"]].values
        scores = [mean_sd(found.get((headline.name, way), ())) for way in ways]
        return [_score(*score) for score in scores]

    better = "less" if headline.direction == "lower" else "more"
    note = escaped(f"{headline.split} {headline.name}, {headline.unit}; {better} is better.")
    if any(way.startswith("draws") for way in ways):
        note += " $N$ draws: the mean of the distributions at the ends of the chain over $N$ draws of noise."
    rows = finished[finished["variant"].isin(list(by_label))]
    return _tabular(rows, ["variant", *(escaped(plain(header_of(way))) for way in ways)], cells, note)


def samples(run: Run) -> str:
    """Return what each variant writes on from the first prompt that they share, '' where none wrote anything."""
    wrote = written(run)
    if not wrote:
        return ""
    prompt = prompts(wrote)[0]
    lines = continuations(wrote, prompt)
    rows = pd.DataFrame(lines, columns=["variant", "decoded", "text"])

    def cells(row: Any) -> list[str]:
        return [escaped(row["decoded"]), escaped(row["text"])]

    note = f"From the prompt {escaped(one_line(prompt, CHARACTERS, keep_end=True))}"
    return _tabular(rows, ["variant", "decoded", "text"], cells, note, r"lp{0.6\linewidth}")


def _score(mean: float | None, sd: float | None, n: int) -> str:
    if mean is None:
        return _MISSING
    return escaped(text.score(mean)) + ("" if sd is None else rf" $\pm$ {text.score(sd)}")


def failures(failed: pd.DataFrame) -> str:
    """Return a row for each cell that did not finish, '' where all did."""

    def cells(row: Any) -> list[str]:
        return [escaped(row[name]) for name in ("seeds", "status", "error")]

    return _tabular(failed, ["variant", "seed", "status", "error"], cells, "", r"llp{0.5\linewidth}")


def told_best(run: Run, finished: pd.DataFrame) -> tuple[set[str], str]:
    """Return the label of the best metric in a set, or the empty set, and in LaTeX how that was decided.

    It is in the set only where Welch's t-test tells it from every other variant of the same work and budget at the
    level of `dbbench.report.verdict`.
    """
    rows = _comparable(run, finished)
    rows = rows[rows["metric_mean"].notna()]
    if len(rows) < 2:
        return set(), "No metric is bold: there are not two to compare on one task, network and budget."
    if len(rows[["metric", "metric_split"]].drop_duplicates()) > 1:
        return set(), "No metric is bold: the variants have different ones."
    lower = rows["metric_direction"].iloc[0] == "lower"
    means = rows["metric_mean"].to_numpy(float)
    best = rows.iloc[int(means.argmin() if lower else means.argmax())]
    values = {label: _values(run, label) for label in rows["variant"]}
    mine = values.pop(best["variant"])
    name, level = escaped(best["variant"]), rf"{100 * LEVEL:.0f}\,\%"
    alone = [label for label in (best["variant"], *values) if len(values.get(label, mine)) < 2]
    if alone:
        return set(), (
            f"No metric is bold: {escaped(alone[0])} has one seed, and without a spread over seeds there is no noise "
            "to hold a difference against."
        )
    tests = {label: welch(mine, theirs) for label, theirs in values.items()}
    like = [label for label, test in tests.items() if (test.p >= LEVEL if test else mine == values[label])]
    untested = [label for label, test in tests.items() if test is None and label not in like]
    if untested:
        return set(), f"No metric is bold: {name} and {escaped(untested[0])} have no spread over seeds, so no test."
    if like:
        more = f" and {len(like) - 1} more" if len(like) > 1 else ""
        return set(), (
            f"No metric is bold: the best, {name}, is not told from {escaped(like[0])}{more} by Welch's t-test over "
            f"seeds at the {level} level."
        )
    tested = f"{len(tests)} tests, not corrected for their number" if len(tests) > 1 else "one test"
    return {best["variant"]}, (
        "A metric is bold where Welch's t-test over seeds tells it from that of every other variant on the same "
        f"network and budget at the {level} level ({tested})."
    )


def _comparable(run: Run, finished: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that do the work of the run's reference under its budget: a best of others means nothing.

    Without a reference that is all, if they do one work, else none.
    """
    keys = list(_SAME_WORK)
    reference = run.main_reference
    base = finished[finished["variant"] == reference.label] if reference is not None else finished.iloc[:0]
    work = list(finished[keys].itertuples(index=False, name=None))
    wanted = next(base[keys].itertuples(index=False, name=None), None)
    if wanted is None:
        return finished if len(set(work)) == 1 else finished.iloc[:0]
    return finished[[one == wanted for one in work]]


def _smallest(run: Run, finished: pd.DataFrame, column: str) -> set[str]:
    """Return the labels with the smallest exact figure, none where all that can be compared have the same."""
    rows = _comparable(run, finished)
    rows = rows[rows[column].notna()]
    if rows[column].nunique() < 2:
        return set()
    return set(rows.loc[rows[column] == rows[column].min(), "variant"])


def _bold_note(run: Run, what: str, best: set[str]) -> str:
    if not best:
        return ""
    where = " of those on the reference's network and budget" if run.main_reference is not None else ""
    return f"Bold: the smallest {what}{where}."


def _values(run: Run, label: str) -> list[float]:
    finished = run.configuration(label).finished
    return [record.row.metric_value for record in finished if record.row.metric_value is not None]


def _tabular(
    table: pd.DataFrame, header: Sequence[str], cells: Callable[[Any], list[str]], note: str, columns: str = ""
) -> str:
    """Return a fragment with a row for each of ``table``, its label first; '' without a row. Cells are LaTeX."""
    if table.empty:
        return ""
    shown = table.iloc[evenly(range(len(table)), _ROWS)]
    if len(shown) < len(table):
        note += f" {len(shown)} of {len(table):,} rows, evenly over the run's order; summary.csv has all."
    lines = [
        "% generated by dbbench report; needs \\usepackage{booktabs}",
        rf"\begin{{tabular}}{{l{columns or 'r' * (len(header) - 1)}}}",
        r"\toprule",
        " & ".join(header) + r" \\",
        r"\midrule",
    ]
    lines += [" & ".join([escaped(row["variant"]), *cells(row)]) + r" \\" for _, row in shown.iterrows()]
    lines += [r"\bottomrule", r"\end{tabular}"]
    if note.strip():
        lines += ["", r"\smallskip", rf"\begin{{minipage}}{{\linewidth}}\footnotesize {note.strip()}\end{{minipage}}"]
    return "\n".join(lines) + "\n"


def _preview(run: Run, captions: dict[str, str]) -> str:
    """A document of every table, to look at: ``pdflatex preview.tex`` in its folder."""
    parts = [
        r"\documentclass{article}",
        r"\usepackage[landscape,margin=15mm]{geometry}",
        r"\usepackage{booktabs}",
        r"\begin{document}",
        rf"\section*{{{escaped(run.name)}}}",
    ]
    for name, caption in captions.items():
        parts += [r"\begin{table}[htbp]", r"\centering\scriptsize", rf"\caption{{{caption}}}"]
        parts += [rf"\input{{{name}.tex}}", r"\end{table}"]
    return "\n".join([*parts, r"\end{document}"]) + "\n"


def _bold(cell: str, row: Any, best: set[str]) -> str:
    return rf"\textbf{{{cell}}}" if row["variant"] in best else cell


def _mib(size_bytes: Any) -> str:
    return escaped(text.mib(size_bytes))


def _ratio(value: Any) -> str:
    return _MISSING if pd.isna(value) else f"{value:.2f}"
