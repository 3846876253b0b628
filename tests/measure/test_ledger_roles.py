"""Roles, phases and places that the ledger gives on small loops whose bytes can be counted by hand."""

from __future__ import annotations

import copy
import gc

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dbbench.measure.account import Account
from dbbench.measure.device import CpuWatch
from dbbench.measure.ledger import BareLedger as Ledger
from dbbench.phases import phase

WIDTH, BATCH = 32, 16
FLOAT = 4


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


class Net(nn.Module):
    """Two linear maps with a GELU between them."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(WIDTH, 4 * WIDTH, bias=False)
        self.down = nn.Linear(4 * WIDTH, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x)))


PARAMETERS = (4 * WIDTH * WIDTH + 4 * WIDTH) * FLOAT


def train(net: Net, optimizer: torch.optim.Optimizer, x: Tensor) -> None:
    net(x).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def test_split_of_a_plain_step_is_the_hand_count() -> None:
    """A role is confused with another."""
    with Ledger() as ledger:
        net, x = Net(), torch.randn(BATCH, WIDTH)
        optimizer = torch.optim.AdamW(net.parameters(), fused=True)
        ledger.watch(net, lambda: [optimizer])
        ledger.declare("inputs", "x", x)
        train(net, optimizer, x)
        with ledger.step(0):
            train(net, optimizer, x)
    own = ledger.account().own_peaks
    assert own["parameters"] == own["gradients"] == PARAMETERS
    assert own["optimizer"] == 2 * PARAMETERS + 2 * FLOAT  # and a step counter for each of two parameters
    assert own["inputs"] == BATCH * WIDTH * FLOAT
    # saved: the map before GELU, the map behind it, and the output that square keeps
    assert own["activations"] == (2 * BATCH * 4 * WIDTH + BATCH) * FLOAT


def test_activations_are_what_saved_tensor_hooks_see() -> None:
    """Logits that the caller holds would count as activations."""
    seen: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        seen[storage._cdata] = storage.nbytes()
        return tensor.detach() if tensor.requires_grad and not tensor.is_leaf else tensor

    net, x = Net(), torch.randn(BATCH, WIDTH)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        logits = net(x)
        loss = logits.square().mean()
    known = {t.untyped_storage()._cdata for t in (*net.parameters(), x)}
    expected = sum(size for address, size in seen.items() if address not in known)
    del loss, logits
    with Ledger() as ledger:
        ledger.watch(net)
        ledger.declare("inputs", "x", x)
        with ledger.step(0):
            held = net(x)
            unused = held * 2  # nobody's backward needs the result
            loss = held.square().mean()
            loss.backward()
    account = ledger.account()
    assert account.own_peaks["activations"] == expected
    assert account.own_peaks["retained"] >= unused.nbytes


def test_the_real_peak_is_not_disturbed() -> None:
    """Watching would change what is watched: the allocator's peak under the ledger equals the one without."""

    def peak(watched: bool) -> int:
        gc.collect()  # what other tests left in cycles is not to go meanwhile
        with CpuWatch() as truth:
            torch.manual_seed(0)
            net, x = Net(), torch.randn(BATCH, WIDTH)
            optimizer = torch.optim.AdamW(net.parameters(), fused=True)
            train(net, optimizer, x)
            if watched:
                with Ledger() as ledger:
                    ledger.watch(net, lambda: [optimizer])
                    with truth.step(), ledger.step(0):
                        train(net, optimizer, x)
            else:
                with truth.step():
                    train(net, optimizer, x)
        assert truth.peaks.device_peak_bytes is not None
        return truth.peaks.device_peak_bytes

    assert peak(watched=True) == peak(watched=False)


@pytest.mark.parametrize("hooked_before", [False, True])
def test_an_update_inside_the_backward_still_books_gradients(hooked_before: bool) -> None:
    """Identities taken only after the step, or after a hook that the code set first, would find no gradient at all."""
    with Ledger() as ledger:
        net, x = Net(), torch.randn(BATCH, WIDTH)
        if not hooked_before:
            ledger.watch(net)

        def update(parameter: Tensor) -> None:
            with torch.no_grad():
                parameter.sub_(parameter.grad, alpha=0.1)  # type: ignore[arg-type]
            parameter.grad = None

        for parameter in net.parameters():
            parameter.register_post_accumulate_grad_hook(update)
        if hooked_before:
            ledger.watch(net)
        with ledger.step(0):
            net(x).square().mean().backward()
    # the larger of the two, since each goes before the next comes
    assert ledger.account().own_peaks["gradients"] == 4 * WIDTH * WIDTH * FLOAT


def test_moved_parameters_stay_parameters() -> None:
    """A parameter brought back through ``p.data = …`` would be an activation or a temporary."""
    with Ledger() as ledger:
        net, x = Net(), torch.randn(BATCH, WIDTH)
        ledger.watch(net)
        away = [p.detach().numpy().copy() for p in net.parameters()]
        with ledger.step(0):
            with phase("swap"), torch.no_grad():
                for p in net.parameters():
                    p.data = torch.empty(0)
            with phase("swap"), torch.no_grad():
                for p, values in zip(net.parameters(), away, strict=True):
                    p.data = torch.from_numpy(values).clone()
            net(x).square().mean().backward()
    account = ledger.account()
    assert account.own_peaks["parameters"] == PARAMETERS
    assert account.split["parameters"] == PARAMETERS


def test_a_resized_storage_is_followed() -> None:
    """Memory given back by ``UntypedStorage.resize_`` would be counted for ever."""
    with Ledger() as ledger:
        x = torch.zeros(1000)
        ledger.declare("other", "x", x)
        with ledger.step(0):
            x.untyped_storage().resize_(0)
            y = torch.zeros(500)
        ledger.declare("other", "y", y)
    account = ledger.account()
    assert account.peak_bytes == 1000 * FLOAT
    assert ledger.timeline()["bytes"].sum() == 500 * FLOAT


def test_ema_and_buffers_have_their_own_roles() -> None:
    """A copy of the weights would be taken for activations."""
    with Ledger() as ledger:
        net, x = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH)), torch.randn(BATCH, WIDTH)
        ema = copy.deepcopy(net).requires_grad_(False)
        ledger.watch(net, others=lambda: [("ema", n, p) for n, p in ema.named_parameters()])
        with ledger.step(0):
            net(x).square().mean().backward()
    split = ledger.account().split
    assert split["ema"] == split["parameters"] == sum(p.nbytes for p in net.parameters())
    assert split["buffers"] == sum(b.nbytes for b in net.buffers())


def test_a_leaked_graph_becomes_retained() -> None:
    """Losses kept with their graphs would look like honest activations of the next step."""
    kept: list[Tensor] = []
    with Ledger() as ledger:
        net, x = Net(), torch.randn(BATCH, WIDTH)
        ledger.watch(net)
        with ledger.step(0):
            kept.append(net(x).square().mean())
        with ledger.step(1):
            net(x).square().mean().backward()
    account = ledger.account()
    assert account.peak_step == 1
    assert account.split["retained"] >= (2 * BATCH * 4 * WIDTH) * FLOAT
    assert kept[0].grad_fn is not None


def _phases_at(account: Account, ledger: Ledger) -> dict[str, set[str]]:
    frame = ledger.timeline()
    grown = frame[(frame["bytes"] > 0) & (frame["phase"] != "resident")]
    return {str(op): set(rows["phase"].astype(str)) for op, rows in grown.groupby("op", observed=True)}


def test_phases_are_inferred_without_marks() -> None:
    """Forward, backward and recompute would run into one another."""
    with Ledger() as ledger:
        net, x = Net(), torch.randn(BATCH, WIDTH)
        optimizer = torch.optim.AdamW(net.parameters(), foreach=True)
        ledger.watch(net, lambda: [optimizer])
        for step in range(2):
            with ledger.step(step):
                hidden = torch.utils.checkpoint.checkpoint(net, x, use_reentrant=False)
                hidden.square().mean().backward()
                optimizer.step()
                optimizer.zero_grad()
    seen = _phases_at(ledger.account(), ledger)
    assert seen["aten.gelu"] == {"forward", "recompute"}
    assert seen["aten.gelu_backward"] == {"backward"}
    assert seen["aten._foreach_sqrt"] == {"optimizer"}


def test_bytes_of_the_backward_belong_to_the_module_whose_forward_made_them() -> None:
    """The culprit of a regression could not be named."""
    with Ledger() as ledger:
        net, x = Net(), torch.randn(BATCH, WIDTH, requires_grad=True)
        ledger.watch(net)
        with ledger.step(0):
            net(x).square().mean().backward()
    frame = ledger.timeline()
    backward = frame[(frame["phase"] == "backward") & (frame["bytes"] > 0)]
    assert set(backward[backward["op"] == "aten.mm"]["module"]) == {"up", "down"}
    parameters = frame[(frame["op"] == "(resident)") & (frame["role"] == "parameters")]
    assert dict(zip(parameters["module"], parameters["bytes"], strict=True)) == {
        "up": 4 * WIDTH * WIDTH * FLOAT,
        "down": 4 * WIDTH * FLOAT,
    }


def test_memory_that_was_there_before_is_said_to_be() -> None:
    """A stranger's tensors would be invisible, and the total too small."""
    before = torch.zeros(1000)
    with Ledger() as ledger:
        with ledger.step(0):
            before.add_(1)
            view = before[:10]
        ledger.declare("other", "before", view)
    account = ledger.account()
    assert account.resident_bytes == 1000 * FLOAT
    assert account.split["other"] == 1000 * FLOAT


def test_numpys_memory_is_not_the_allocators() -> None:
    """A view of an array would be counted as if torch had allocated it."""
    import numpy as np

    array = np.zeros(1000, dtype=np.float32)
    with Ledger() as ledger, ledger.step(0):
        torch.from_numpy(array).view(10, 100).sum()
    assert ledger.account().peak_bytes == FLOAT


def test_hooks_and_patches_are_gone_after_an_exception() -> None:
    """A failed step would leave a process that records for ever."""
    get_rng_state, resize = torch.get_rng_state, torch.UntypedStorage.resize_
    enter = torch.autograd.graph.saved_tensors_hooks.__enter__
    ledger = Ledger()
    with pytest.raises(RuntimeError, match="size of tensor"), ledger, ledger.step(0):
        torch.zeros(10) + torch.zeros(11)
    assert torch.get_rng_state is get_rng_state
    assert torch.UntypedStorage.resize_ is resize
    assert torch.autograd.graph.saved_tensors_hooks.__enter__ is enter
    events = len(ledger.trace.event_op)
    torch.zeros(10)
    assert len(ledger.trace.event_op) == events
