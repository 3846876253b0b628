"""Models of devices by name: how much memory torch sees on one, and how fast it could move bytes and multiply at most.

``memory`` is what ``torch.cuda.get_device_properties().total_memory`` gave where somebody has published it, which is
less than the board's nominal size: the driver keeps a part, and where the memory corrects errors (ECC) on GDDR, that
takes a sixteenth. Drivers differ by tenths of a GiB; of several published figures it is the lowest. Rates of products
are those of `dbbench.measure.rates`, under the name that torch gives the device. ``bandwidth`` and ``cache`` are the
data sheets' largest figures, ``link`` the signalling rate of one direction of the PCI Express slot less its encoding:
nothing that runs can be faster, so that a bound made of them is one.
"""

from __future__ import annotations

from dataclasses import dataclass

from dbbench.errors import BadInput, did_you_mean
from dbbench.measure.rates import Precision, peak_flops_per_second

GIB = 1 << 30
MIB = 1 << 20
#: 16 lanes, by generation: transfers a second × lanes / 8 bits × what the encoding leaves (PCI-SIG; 6 sends packets of
#: 256 bytes, of which 242 are the sender's).
LINKS = {
    3: 8e9 * 16 / 8 * 128 / 130,
    4: 16e9 * 16 / 8 * 128 / 130,
    5: 32e9 * 16 / 8 * 128 / 130,
    6: 64e9 * 16 / 8 * 242 / 256,
}


@dataclass(frozen=True)
class DeviceModel:
    """One model of device. ``cuda_name`` is what ``torch.cuda.get_device_name()`` calls it."""

    name: str
    cuda_name: str
    memory_bytes: int
    memory_source: str
    bandwidth_bytes_per_second: float
    cache_bytes: int
    link_bytes_per_second: float
    source: str

    def rate(self, precision: Precision) -> tuple[float | None, str]:
        """Return (FLOP/s, source) of dense products in ``precision``, or (None, reason)."""
        return peak_flops_per_second(self.cuda_name, precision)


def _model(
    name: str, cuda_name: str, memory_gib: float, seen: str, bandwidth: float, cache_mib: float, pci: int, source: str
) -> DeviceModel:
    return DeviceModel(
        name=name,
        cuda_name=cuda_name,
        memory_bytes=int(memory_gib * GIB),
        memory_source=f"torch reported {memory_gib:g} GiB ({seen})",
        bandwidth_bytes_per_second=bandwidth * 1e9,
        cache_bytes=int(cache_mib * MIB),
        link_bytes_per_second=LINKS[pci],
        source=f"{source}; PCI Express {pci}.0 × 16",
    )


#: name, torch's name, GiB that torch sees and who says so, GB/s, MiB of last-level cache, PCI Express, source of those
MODELS: dict[str, DeviceModel] = {
    model.name: model
    for model in (
        _model("b200-192gb", "NVIDIA B200", 178.35, "pytorch/ao pull request 4002", 8000, 126.5, 6,
               "NVIDIA Blackwell architecture technical brief; cache as the driver reports it"),
        _model("h200-141gb", "NVIDIA H200", 139.72, "out-of-memory messages of 2025, 139.72 to 139.81", 4800, 60, 5,
               "NVIDIA H200 data sheet; cache as the driver reports it"),
        _model("h100-80gb", "NVIDIA H100 80GB HBM3", 79.11, "vllm-project/vllm issue 27508", 3350, 50, 5,
               "NVIDIA H100 data sheet, SXM"),
        _model("a100-80gb", "NVIDIA A100-SXM4-80GB", 79.15, "vllm-project/vllm issue 4408", 2039, 40, 4,
               "NVIDIA A100 80GB data sheet, SXM"),
        _model("a100-40gb", "NVIDIA A100-SXM4-40GB", 39.50, "TianheWu/CoSeR issue 10", 1555, 40, 4,
               "NVIDIA A100 data sheet, SXM, 40 GB"),
        _model("v100-32gb", "Tesla V100-SXM2-32GB", 31.74, "haotian-liu/LLaVA issue 812", 900, 6, 3,
               "NVIDIA V100 data sheet, SXM2; cache of the Volta white paper"),
        _model("l40s-48gb", "NVIDIA L40S", 44.42, "stepfun-ai/Step-Video-T2V issue 8", 864, 96, 4,
               "NVIDIA L40S data sheet; cache of the Ada white paper's full AD102"),
        _model("a10-24gb", "NVIDIA A10", 22.20, "XavierXiao/Dreambooth-Stable-Diffusion issue 18, an A10G", 600, 6, 4,
               "NVIDIA A10 data sheet; cache of the GA102 white paper"),
        _model("l4-24gb", "NVIDIA L4", 22.03, "out-of-memory messages of 2025", 300, 48, 4,
               "NVIDIA L4 data sheet; cache of the Ada white paper's AD104"),
        _model("t4-16gb", "Tesla T4", 14.75, "hpcaitech/Open-Sora issue 697", 320, 4, 3,
               "NVIDIA T4 product brief; cache of the Turing white paper's TU104"),
        _model("rtx-4090-24gb", "NVIDIA GeForce RTX 4090", 23.64, "3DTopia/Phidias-Diffusion issue 8", 1008, 72, 4,
               "NVIDIA Ada white paper, table 2"),
        _model("rtx-3090-24gb", "NVIDIA GeForce RTX 3090", 23.70, "GaoLii/DSP issue 10", 936, 6, 4,
               "NVIDIA GA102 white paper, table 9"),
    )
}  # fmt: skip


def device_model(name: str, where: str = "--device-model") -> DeviceModel:
    """Return the model ``name``; BadInput, opened by ``where``, with the nearest name where there is none."""
    found = MODELS.get(name.strip().lower())
    if found is None:
        raise BadInput(f"{where}: unknown device model '{name:.60}'{did_you_mean(name.lower(), MODELS)}")
    return found


def model_of_device(cuda_name: str) -> DeviceModel | None:
    """Return the model of the device that torch calls ``cuda_name``, None where it is not in the table."""
    return next((model for model in MODELS.values() if model.cuda_name == cuda_name.strip()), None)
