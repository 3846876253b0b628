"""The ledger of a test: it counts what the test and its fixtures made, whatever other tests have left behind."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, Self
from weakref import ref

import torch
from torch import Tensor, nn

from dbbench.errors import BadInput
from dbbench.measure import private
from dbbench.measure.census import existing, kept_by_graphs
from dbbench.measure.holders import NOBODY, Variable, find_holders
from dbbench.profile.ledger import Ledger
from dbbench.pytest_plugin.finding import Finder, Reached, reached_from
from dbbench.report.unseen import blind_spots

Device = Literal["cpu", "cuda", "fake"]


class Baseline:
    """The storages that there were at some moment, held weakly."""

    def __init__(self) -> None:
        self._storages = {storage._cdata: ref(storage) for storage in _storages()}

    def is_new(self, tensor: Tensor) -> bool:
        """Tell whether some storage of ``tensor`` was not there."""
        return any(not self._was_there(storage) for storage, _ in private.storages(tensor))

    def left_behind(self, fixtures: Mapping[str, Any], test: str) -> Counter[str]:
        """Return the bytes of the storages that are there now and were not, by who holds them."""
        new = {storage._cdata: storage for storage in _storages() if not self._was_there(storage)}
        wanted = {address: (number, new[address].nbytes()) for number, address in enumerate(new)}
        sizes = dict(wanted.values())
        given = [Variable("fixture", test, name, value) for name, value in fixtures.items()]
        holders = find_holders(dict(wanted), sys._getframe(1), given) if wanted else {}
        found: Counter[str] = Counter()
        for number, size in sizes.items():
            found[holders.get(number, NOBODY)] += size
        return found

    def _was_there(self, storage: Any) -> bool:
        known = self._storages.get(storage._cdata)
        return known is not None and known() is not None


def _storages() -> list[Any]:
    """Return every storage that a tensor of Python's, or the graph of one, has."""
    tensors = existing()[0]
    return [storage for tensor in [*tensors, *kept_by_graphs(tensors)] for storage, _ in private.storages(tensor)]


class WatchingLedger(Ledger):
    """A `dbbench.Ledger` that finds models and optimizers by itself, if it is to ``find`` any.

    ``expected`` is what fixtures hold; where they hold no model, set-up lasts until one is called. ``holders`` are
    asked first who holds what is retained. Its ``whole`` body is one step, unless steps are marked. What it finds it
    does not keep alive.
    """

    def __init__(
        self,
        model: Any = None,
        optimizer: Any = None,
        *,
        find: bool = True,
        whole: bool = True,
        expected: Reached | None = None,
        holders: Iterable[Variable] = (),
        **options: Any,
    ) -> None:
        super().__init__(model, optimizer, **options)
        self._holders += holders
        self._finder = Finder(self._found) if find else None
        self._whole, self._expected = whole, expected
        self._hooks: list[Any] = []
        self._opening = True
        self._fake_mode_entered = False
        self.entered = False

    def __enter__(self) -> Self:
        if self._finder is not None:
            self._finder.open()  # before the recorder, whose hook is to know a module's path already
        try:
            super().__enter__()
        except BaseException:
            self._close_finder()
            raise
        self._notice_fake_modes()
        if self._finder is not None:
            self.watch({}, others=self._finder.identities)
            if self._whole:
                self._rest_collector()
            if self._expected is not None:
                self._finder.expect(self._expected)
                for name, tensor in self._expected.inputs:
                    self.declare("inputs", name, tensor)
            with self._recorder.aside():
                self._identities.take()
            if any(True for _ in self._finder.models()):
                self._begin()
        self._expected = None
        self._opening = False
        self.entered = True
        return self

    def __exit__(self, kind: Any, error: BaseException | None, *details: object) -> None:
        try:
            if self._finder is not None and not self._steps_begun:
                self._begin()  # set-up was all there was, and who holds what is left of it is to be named
            super().__exit__(kind, error, *details)
        finally:
            self._close_finder()

    def blind_spot(self) -> str | None:
        """Say what the ledger could not see, in words for a message, None where nothing is known to be missing."""
        if self._fake_mode_entered and (self.trace.device != "fake" or not self.account().peak_bytes):
            return (
                "it enters FakeTensorMode inside, where a ledger around it cannot see: enter the mode in a fixture, or "
                "open the fixture `ledger` within it"
            )
        return None

    def _notice_fake_modes(self) -> None:
        enter = private.FakeTensorMode.__enter__

        def noticed(mode: Any) -> Any:
            self._fake_mode_entered = True
            return enter(mode)

        self._recorder.patch(private.FakeTensorMode, "__enter__", noticed)

    def _close_finder(self) -> None:
        for handle in self._hooks:
            handle.remove()
        self._hooks.clear()
        if self._finder is not None:
            self._finder.close()

    def _found(self, name: str, root: nn.Module) -> None:
        """Take in a model that was found."""
        self._recorder.modules.name(root, name, keep=False)
        for path, parameter in root.named_parameters(prefix=name):
            if parameter.requires_grad and parameter.is_leaf and not nn.parameter.is_lazy(parameter):
                handle = parameter.register_post_accumulate_grad_hook(self._noter(path))
                private.first_of_its_hooks(parameter, handle)
                self._hooks.append(handle)
        kind = type(root).__name__
        self._name = kind if self._name == "a step" else f"{self._name}, {kind}"
        if self._opening:
            return
        with self._recorder.aside():
            self._identities.take()
        if not self._steps_begun:
            self._begin()

    def _noter(self, name: str) -> Callable[[Tensor], None]:
        """Return a hook that knows a gradient before the code's own hooks may let go of it."""

        def accumulated(parameter: Tensor) -> None:
            if parameter.grad is not None:
                self.declare("gradients", name, parameter.grad)

        return accumulated


class Surroundings:
    """What a test stands on: its fixtures, and what was there before any of them was made.

    Of the tensors that are there when a ledger opens those count that this test's fixtures made, or lead to; of the
    rest, what the step touches. What other tests have left behind does not.
    """

    def __init__(self, before: Baseline | None, fixtures: Callable[[], Mapping[str, Any]], test: str) -> None:
        self._before, self._fixtures, self._test = before, fixtures, test

    def ledger(self, model: Any = None, optimizer: Any = None, **options: Any) -> WatchingLedger:
        """Return a ledger to open now."""
        fixtures = self._fixtures()
        reached = reached_from(fixtures)
        leads = {id(tensor) for tensor in reached.tensors}
        before = self._before
        if options.get("census") is None:
            options["census"] = lambda tensor: id(tensor) in leads or before is None or before.is_new(tensor)
        if model is None:
            options["expected"] = reached
            options["device"] = options.get("device") or device_of(reached)
        options["holders"] = [Variable("fixture", self._test, name, value) for name, value in fixtures.items()]
        return WatchingLedger(model, optimizer, find=model is None, **options)


def device_of(reached: Reached) -> Device:
    """Return where the tensors of ``reached`` are: the first parameter's place, else the first tensor's.

    Where there is none it is the default device. An open FakeTensorMode comes before all.
    """
    if private.in_fake_mode():
        return "fake"
    for tensor in [*(p for m in reached.modules.values() for p in m.parameters()), *reached.tensors]:
        if isinstance(tensor, private.FakeTensor):
            return "fake"
        if tensor.device.type in ("cpu", "cuda"):
            return tensor.device.type  # type: ignore[return-value]
    return "cuda" if torch.get_default_device().type == "cuda" else "cpu"


@contextmanager
def cuda_noticed() -> Iterator[Callable[[], bool]]:
    """Gives a callable that tells whether CUDA memory was allocated meanwhile."""

    def allocations() -> int:
        if not torch.cuda.is_initialized():
            return 0
        return sum(
            torch.cuda.memory_stats(i).get("allocation.all.allocated", 0) for i in range(torch.cuda.device_count())
        )

    before = allocations()
    yield lambda: allocations() > before


def require_seen(ledger: WatchingLedger, cuda_used: bool, what: str) -> None:
    """Raise BadInput where the ledger's figures are not those of what ran."""
    blind = ledger.blind_spot() or "; ".join(blind_spots(ledger.account().own_peaks["unseen"], ledger.unmeasured_work))
    device = ledger.trace.device
    if not blind and cuda_used and device != "cuda":
        blind = f'it allocates on CUDA, and bytes were counted on {device}: write device="cuda"'
    if not blind and not ledger.account().peak_bytes:
        blind = f'no tensor on {device} was alive while it ran; device="cpu", "cuda" or "fake" says where to look'
    if blind:
        raise BadInput(f"{what}: nothing to hold a limit against: {blind}")
