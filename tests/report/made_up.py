"""Fits and scalings whose figures follow from a formula, for tests of what is made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dbbench.results.fit import Fit, FitEdge, FitLine, FitProbe
from dbbench.results.scaling import PowerLaw, Scaling, ScalingAxis, ScalingLine, ScalingPoint

MIB, GIB = 2**20, 2**30

#: network and size: bytes that do not depend on the batch, and bytes a sample
PRESETS = {("vit", "base"): (2, 0.08), ("vit", "huge"): (10, 0.45), ("llama", "7b"): (50, 12.8)}
#: variant: method, residency, and the shares of the two that it takes
VARIANTS = {
    "backprop": ("backprop", "all", 1.0, 1.0),
    "checkpointing": ("checkpointing", "all", 1.0, 0.08),
    "blocks_all": ("diffusion_blocks", "all", 0.95, 0.27),
    "blocks_active": ("diffusion_blocks", "active", 0.35, 0.27),
}


def made_fit(memories_gib: Sequence[int] = (24, 80), highest: int = 65_536, gaps: Sequence[int] = ()) -> Fit:
    """Return a fit of three networks and four variants; ``gaps`` goes to the first edge, with probes that say so."""
    lines = []
    for (network, size), (fixed, each) in PRESETS.items():
        for variant, (method, residency, state, activations) in VARIANTS.items():
            needs = (fixed * state * GIB, each * activations * GIB)
            lines.append(_line(network, size, variant, method, residency, needs, memories_gib, highest))
    first = lines[0]
    for value in gaps:
        size = 25 * GIB
        fits = [memory > 25 for memory in memories_gib]
        first.probes.append(
            FitProbe(value=value, peak_bytes=size, allocated_bytes=size, reserved_bytes=size, fits=fits)
        )
        first.edges[0].gaps.append(value)
    first.probes.sort(key=lambda probe: probe.value)
    return Fit(
        axis="batch",
        highest=highest,
        memories_bytes=[memory * GIB for memory in memories_gib],
        headroom_bytes=512 * MIB,
        allocator="",
        torch_version="2.13.0",
        dbbench_version="0.1.0",
        lines=lines,
    )


def _line(
    network: str,
    size: str,
    variant: str,
    method: str,
    residency: str,
    needs: tuple[float, float],
    memories_gib: Sequence[int],
    highest: int,
) -> FitLine:
    fixed, each = needs
    probes: dict[int, FitProbe] = {}
    edges = []
    for memory in memories_gib:
        largest = max(0, min(highest, int((memory * GIB - fixed) / each)))
        following = largest + 1 if largest < highest else None
        edges.append(FitEdge(largest=largest or None, following=following))
        for value in {max(largest, 1), following or highest}:
            peak = int(fixed + each * value)
            fits = [peak <= m * GIB for m in memories_gib]
            probes[value] = FitProbe(
                value=value, peak_bytes=peak, allocated_bytes=peak, reserved_bytes=peak + 3 * MIB, fits=fits
            )
    return FitLine(
        suite="made",
        variant=f"{variant}.network.size-{size}",
        method=method,
        options={"residency": residency} if method == "diffusion_blocks" else {},
        network=network,
        network_size=size,
        task="made",
        precision="bf16",
        residency=residency,
        parameters_count=1_000,
        lowest=1,
        probes=sorted(probes.values(), key=lambda probe: probe.value),
        edges=edges,
    )


def made_scaling(
    axis: ScalingAxis, lines: dict[str, tuple[str, dict[str, Any], dict[str, Callable[[int], float]]]]
) -> Scaling:
    """Return a scaling at 4, 8, 16 and 32 of variants given as label: (method, options, {quantity: bytes of a value}).

    The laws are exact powers where the formula is one: the exponent is read off the first and the last point.
    """
    values = [4, 8, 16, 32]
    made = []
    for label, (method, options, formulas) in lines.items():
        sizes = {quantity: [round(formula(v)) for v in values] for quantity, formula in formulas.items()}
        made.append(
            ScalingLine(
                variant=label,
                method=method,
                network="vit",
                network_size="base",
                task="images",
                precision="fp32",
                residency=options.get("residency"),
                varies=True,
                points=[
                    ScalingPoint(value=v, options=options, bytes={q: size[i] for q, size in sizes.items()})
                    for i, v in enumerate(values)
                ],
                laws=[_law(quantity, size) for quantity, size in sizes.items()],
            )
        )
    return Scaling(suite="made", axis=axis, values=values, torch_version="2.13.0", dbbench_version="0.1.0", lines=made)


def _law(quantity: str, sizes: list[int]) -> PowerLaw:
    import math

    exponent = math.log(sizes[-1] / sizes[0]) / math.log(8)
    return PowerLaw(
        quantity=quantity, points=4, exponent=exponent, error=0.01, fixed_bytes=0.0, bytes_per_unit=1.0, off_line=0.0
    )
