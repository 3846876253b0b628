"""The parts of a network among what is held: every byte in one of them, and none lost by trimming a record."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from dbbench.results.parts import PARTS, part_of_each, parts_at_peak
from dbbench.results.record import Held
from dbbench.results.roles import ROLES
from dbbench.results.store import RECORD_LIMIT_BYTES, SUMMED_BY_PART, RunFolder

PATHS = ["", "layers.3.mlp", "fronts.0.shell.embedding", "heads.1.linear", "head.norm", "coda.0.mlp", "fronts.1.noise"]
OPS = ["aten.mm", "aten._log_softmax", "aten._to_copy", "weight"]


@st.composite
def lines(draw: Any) -> list[Held]:
    count = draw(st.integers(1, 400))
    random = draw(st.randoms(use_true_random=False))
    return [
        Held(
            role=random.choice(ROLES),
            module=random.choice(PATHS),
            op=random.choice(OPS),
            bytes=64 * random.randint(1, 300),
            storages=random.randint(1, 3),
        )
        for _ in range(count)
    ]


@settings(max_examples=15, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(held=lines(), phase=st.sampled_from(["forward", "backward", None]))
def test_every_byte_is_in_one_part_and_trimming_moves_none(tmp_path_factory, make_record, held, phase):
    """A report of a trimmed record would have other parts than one of the whole."""
    parts = parts_at_peak(held, phase)
    for role in ROLES:
        assert sum(of.get(role, 0) for of in parts.values()) == sum(h.bytes for h in held if h.role == role)
    record = make_record(held=held, peak_phase=phase)
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    folder.write_record(record)
    (read,), _ = folder.read_records()
    assert (folder.path / "records" / f"{record.row.config_hash}.json").stat().st_size <= RECORD_LIMIT_BYTES
    if "held_at_peak" in read.unavailable:
        assert read.unavailable["held_at_peak"] == SUMMED_BY_PART
    totals = {part: sum(of.values()) for part, of in parts_at_peak(read.held_at_peak, phase).items()}
    assert totals == {part: sum(of.values()) for part, of in parts.items()}


def made(module: str, op: str, role: str = "temporaries", size: int = 4096) -> Held:
    return Held(role=role, module=module, op=op, bytes=size, storages=1)


SOFTMAX = made("", "aten._log_softmax", "activations", 8192)


@pytest.mark.parametrize(
    ("line", "phase", "part"),
    [
        (made("network.layers.3.attention.q", "weight", "parameters"), "backward", "layers"),
        (made("fronts.2.shell.embedding", "exp_avg", "optimizer"), "backward", "embedding"),
        (made("heads.0.linear", "weight", "gradients"), "backward", "head"),
        (made("fronts.0.shell.coda.0.mlp", "aten.mul", "activations"), "backward", "outer_layers"),
        (made("fronts.0.noise.up", "weight", "parameters"), "backward", "rest"),
        (made("head.linear", "aten.mm"), "forward", "logits"),
        (made("head.linear", "aten.mm"), "backward", "head"),  # the gradient of its input
        (made("heads.0.linear", "aten.mm", "retained"), "backward", "logits"),
        (made("head.modulation.linear", "aten.addmm", "activations"), "forward", "head"),
        (made("", "aten.nll_loss_backward"), "backward", "logits"),
        (made("layers.0.attention", "aten._softmax", "activations"), "backward", "layers"),
        (made("", "aten._to_copy", size=8192), "backward", "logits"),
        (made("", "aten._to_copy", size=4096), "backward", "logits"),  # in half precision
        (made("", "aten._to_copy", size=512), "backward", "rest"),
        (made("", "aten.clone", "inputs"), "backward", "rest"),
    ],
)
def test_a_line_belongs_where_its_module_and_op_say(line: Held, phase: str, part: str) -> None:
    """A head's or a layer's bytes under another name."""
    assert part_of_each([SOFTMAX, line], phase) == ["logits", part]
    assert part in PARTS
