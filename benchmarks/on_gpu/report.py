"""The report of a folder, made anew after every stage from what the stages' logs hold."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from typing import Any

from benchmarks.on_gpu.log import Log
from benchmarks.on_gpu.stage import Setting
from benchmarks.on_gpu.stages import NAMES, stage
from benchmarks.on_gpu.step_time import PUBLISHED_SECONDS
from dbbench.files import write_atomically
from dbbench.foreign import in_words
from dbbench.report.text import markdown_table

MIB = 1 << 20
Ended = dict[str, dict[str, Any]]


def write_report(setting: Setting) -> None:
    """Write ``on_gpu.md``, ``on_gpu.json`` and ``on_gpu.parquet`` into the folder."""
    found = {name: Log.read(setting.log(name)).ended for name in NAMES}
    write_atomically(setting.out / "on_gpu.md", markdown(found, setting).encode())
    write_atomically(setting.out / "on_gpu.json", json.dumps(found, indent=1, sort_keys=True).encode())
    import pandas as pd

    rows = [row for name, ended in found.items() for row in _flat_rows(name, ended)]
    columns = ["stage", "item", "figure", "value", "text"]
    frame = pd.DataFrame(rows, columns=columns)
    write_atomically(setting.out / "on_gpu.parquet", frame.to_parquet(index=False))


def _flat_rows(name: str, ended: Ended) -> Iterator[list[Any]]:
    for item, end in ended.items():
        for figure, value in _leaves("", end.get("result", {"error": end.get("error")})):
            number = float(value) if isinstance(value, (int, float)) else None
            yield [name, item, figure, number, None if number is not None or value is None else str(value)]


def _leaves(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(f"{prefix}.{key}" if prefix else str(key), inner)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _leaves(f"{prefix}.{index}", inner)
    else:
        yield prefix, value


def markdown(found: dict[str, Ended], setting: Setting) -> str:
    """Return the page."""
    sections = {
        "machine": _machine,
        "gpu_tests": _tests,
        "ledger_truth": _truth,
        "estimates": _estimates,
        "step_time": _time,
        "learning": _learning,
    }
    identity = found["machine"].get("identity", {}).get("result", {})
    parts = [
        f"# On {identity.get('device', 'an unknown device')}",
        "Made by `python -m benchmarks.on_gpu`. Every item that was begun has a line: a figure, or why there is none.",
    ]
    for name, section in sections.items():
        items = stage(name).items(setting)
        ended = {item: found[name][item] for item in items if item in found[name]}
        done = {item: end["result"] for item, end in ended.items() if "result" in end}
        parts.append(f"## {stage(name).title}")
        parts.append(f"{len(done)} of {len(items)} done, {len(ended) - len(done)} failed.")
        parts += [f"- `{item}`: {end['error']}" for item, end in ended.items() if "error" in end]
        try:
            parts += [part for part in (section(done) if done else []) if part]
        except Exception as error:  # what was measured must reach the page's other sections, and the JSON
            parts.append(f"This section could not be written: {in_words(error)}")
    return "\n\n".join(parts) + "\n"


def _machine(done: dict[str, Any]) -> list[str]:
    lines = []
    if identity := done.get("identity"):
        shown = {key: value for key, value in identity.items() if value is not None}
        lines.append(", ".join(f"{key.replace('_', ' ')} {value}" for key, value in shown.items()) + ".")
    if copy := done.get("copy"):
        lines.append(
            f"A copy within the device's memory moves {copy['bytes_per_second'] / 1e9:,.0f} GB/s (read and written)."
        )
    for item, product in done.items():
        if item.startswith("product"):
            rate = product["flops_per_second"] / 1e12
            lines.append(f"A matrix product of side {product['side']:,} in {item.split()[1]}: {rate:,.1f} TFLOP/s.")
    if doctor := done.get("doctor"):
        faults = [f for f in doctor["findings"] if f["state"] in ("missing", "broken")]
        lines.append("`dbbench doctor` finds missing: " + (", ".join(f["what"] for f in faults) or "nothing") + ".")
    return lines


def _tests(done: dict[str, Any]) -> list[str]:
    tests = [test | {"file": file} for file, result in done.items() for test in result["tests"]]
    counts = {outcome: sum(t["outcome"] == outcome for t in tests) for outcome in ("passed", "failed", "skipped")}
    lines = [", ".join(f"{count} {outcome}" for outcome, count in counts.items()) + "."]
    lines += [
        f"- `{t['file']}`: {t['test']} failed: {t['message'].splitlines()[0] if t['message'] else ''}"
        for t in tests
        if t["outcome"] == "failed"
    ]
    return lines


def _mib(size: Any) -> str:
    return "–" if size is None else f"{size / MIB:,.2f}"


def _truth(done: dict[str, Any]) -> list[str]:
    rows, differing = [], []
    verdicts: dict[str, int] = {}
    for item, r in done.items():
        said = {}
        for other, compared in r["roles"].items():
            worst = max(compared, key=lambda row: ("equal", "within 1 %", "differs").index(row["verdict"]))
            said[other] = worst["verdict"]
            verdicts[worst["verdict"]] = verdicts.get(worst["verdict"], 0) + 1
            for row in compared:
                if row["verdict"] != "equal":
                    differing.append(
                        f"- {item}, {row['figure']}, beside {other}: {row['verdict']}, "
                        f"{row['device'] - row['other']:+,} bytes: {row['where']}"
                    )
        replay = "–"
        if "replayed_peak_bytes" in r:
            replay = "equal" if r["replayed_peak_bytes"] == r["counted_peak_bytes"] else "differs"
        rows.append(
            [
                item, _mib(r["ledger_peak_bytes"]), said.get("fake", "–"), said.get("cpu", "–"),
                _mib(r["device_peak_bytes"]), _mib(r["kernel_workspace_bytes"]), _mib(r.get("cublas_workspace_bytes")),
                _workspace_words(r), replay, _mib(r["allocated_bytes"]), _mib(r["reserved_bytes"]),
                _mib(r["nvml_process_peak_bytes"]),
            ]
        )  # fmt: skip
    header = [
        "cell", "ledger, MiB", "beside fake tensors", "beside CPU", "device, MiB", "outside the ledger", "cuBLAS",
        "most inside an op", "replayed history", "allocated", "reserved", "NVML",
    ]  # fmt: skip
    sums = all(r["ledger_peak_bytes"] == r["sum_of_roles_bytes"] for r in done.values())
    counted = ", ".join(f"{count} {said}" for said, count in verdicts.items())
    lines = [
        f"The roles sum to the peak in {'all' if sums else 'not all'} cells. "
        f"The worst role of each comparison: {counted}.",
        "*Device* is the most bytes asked of the allocator in untraced steps; *outside the ledger* is what that is "
        "more than the ledger's peak. *Replayed history*: the peak from torch's record of the allocator beside its "
        "counter.",
        markdown_table(header, rows),
    ]
    if differing:
        lines += ["What is not equal to the byte:", "\n".join(differing)]
    return lines


def _workspace_words(result: dict[str, Any]) -> str:
    by_op = result.get("workspace_by_op_bytes") or {}
    return ", ".join(f"{op} {_mib(size)}" for op, size in list(by_op.items())[:2]) or "–"


def _estimates(done: dict[str, Any]) -> list[str]:
    from dbbench.results.calibration import TOTALS, CalibrationCell, errors_of

    cells = {item: CalibrationCell.model_validate(r["cell"]) for item, r in done.items() if "cell" in r}
    errors = {item: {error.figure: error for error in errors_of(cell)} for item, cell in cells.items()}
    rows, lines = [], []
    for item, cell in cells.items():
        found = errors[item]
        step, bound = cell.measured.step_seconds, cell.bound_seconds
        rows.append(
            [
                item,
                _mib(found["peak"].measured_bytes),
                *(f"{found[f].percent:+.3f} %" if f in found else "–" for f in TOTALS),
                "–" if step is None else f"{step * 1e3:.1f} ms",
                "–" if step is None or bound is None else f"{step / bound:.2f}×",
            ]
        )  # fmt: skip
    for figure in TOTALS:
        sizes = [abs(found[figure].percent) for found in errors.values() if figure in found]
        if sizes:
            lines.append(f"- {figure}: median error {statistics.median(sizes):.3f} %, largest {max(sizes):.3f} %.")
    lines = ["\n".join(lines)]
    if rows:
        header = ["cell", "peak, MiB", "peak", "requested", "allocated", "reserved", "step", "over its bound"]
        lines += ["Signed errors, estimated less measured:", markdown_table(header, rows)]
    for item, r in done.items():
        if "largest" in r:
            right = r["largest_fits"] is True and r["following_fits"] is not True
            lines.append(
                f"{item}: `fit` names batch {r['largest']}, which {'fits' if r['largest_fits'] else 'does not fit'}; "
                f"{r['following']} {'fits as well' if r['following_fits'] else 'does not'}. "
                f"{'As foretold.' if right else 'Not as foretold.'}"
            )
    return lines


def _time(done: dict[str, Any]) -> list[str]:
    lines = []
    for item, r in done.items():
        if item == "ledger":
            lines.append(
                f"Under the ledger a step takes {r['ratio']:.2f} times as long "
                f"({r['ledger_seconds'] * 1e3:.1f} ms beside {r['bare_seconds'] * 1e3:.1f} ms)."
            )
            continue
        base = r["seconds"]["backprop"]
        rows = [
            [name, f"{seconds * 1e3:.2f}", f"{r['least_seconds'][name] * 1e3:.2f}",
             f"{r['most_seconds'][name] * 1e3:.2f}", f"{seconds / base:.2f}",
             _mib(r["transfer_bytes_per_step"][name])]
            for name, seconds in r["seconds"].items()
        ]  # fmt: skip
        lines.append(f"**{item}**, batch {r['batch_size']}, median of {r['rounds']} rounds in turns:")
        header = ["method", "step, ms", "least", "most", "of backprop's", "MiB moved a step"]
        lines.append(markdown_table(header, rows))
        if r["staged_last_stage_alone"]:
            lines.append(f"{', '.join(r['staged_last_stage_alone'])}: the step of its last stage.")
    published = PUBLISHED_SECONDS
    lines.append(
        f"Published for the 12-layer ViT at batch 256: {published['diffusion_blocks']} s for a block's step, "
        f"{published['backprop']} s for backprop's: {published['diffusion_blocks'] / published['backprop']:.2f} of it."
    )
    return lines


def _learning(done: dict[str, Any]) -> list[str]:
    rows = []
    for item, r in done.items():
        row = r["row"]
        rows.append(
            [item, row["metric"], f"{row['metric_value']:.4f}", _mib(row["peak_bytes"]),
             _mib(row["device_peak_bytes"]), f"{row['train_seconds']:.1f}"]
        )  # fmt: skip
    header = ["cell", "metric", "value", "ledger's peak, MiB", "device's peak", "seconds"]
    return [markdown_table(header, rows)]
