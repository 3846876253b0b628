"""``@pytest.mark.memory_limit``: what it counts, and when it speaks."""

from __future__ import annotations

import pytest
import torch
from inner_run import Run

from dbbench.errors import BadInput
from dbbench.pytest_plugin.watching import WatchingLedger, require_seen

#: Bytes of `inner_run.MODEL`, counted by hand.
IN, HIDDEN, OUT, BATCH, FLOAT = 8, 32, 4, 64, 4
PARAMETERS = (IN * HIDDEN + HIDDEN + HIDDEN * OUT + OUT) * FLOAT
INPUTS = BATCH * IN * FLOAT
#: The second map keeps what it was given; the first map's input is the batch itself.
ACTIVATIONS = BATCH * HIDDEN * FLOAT


def test_limits_are_those_counted_by_hand(run: Run) -> None:
    """A limit would be of something else than parameters, gradients, inputs and activations: each to the byte."""
    exact = {"parameters": PARAMETERS, "gradients": PARAMETERS, "inputs": INPUTS, "activations": ACTIVATIONS}
    ran = run(f"""
        TRAIN = lambda model, batch: model(batch).sum().backward()

        @pytest.mark.memory_limit(**{exact})
        def test_exact(model, batch):
            TRAIN(model, batch)

        @pytest.mark.parametrize("which", [
            pytest.param(name, marks=pytest.mark.memory_limit(**{{name: size - 1}})) for name, size in {exact}.items()
        ])
        def test_less(which, model, batch):
            TRAIN(model, batch)
    """)
    assert ran.outcomes["test_exact"] == "passed"
    for name, size in exact.items():
        assert ran.outcomes[f"test_less[{name}]"] == "failed"
        assert f"{name}: " in ran.words[f"test_less[{name}]"]
        assert f"({size:,} bytes), 1 byte (" in ran.words[f"test_less[{name}]"]


def test_the_peak_is_that_counted_by_hand(run: Run) -> None:
    """The peak would leave out what fixtures made, or count what was there before: a prediction of one map."""
    peak = (IN * HIDDEN + HIDDEN) * FLOAT + INPUTS + BATCH * HIDDEN * FLOAT
    ran = run(f"""
        @pytest.fixture
        def one():
            torch.zeros(1 << 20)  # what making it took does not count
            return nn.Linear(IN, HIDDEN)

        def predict(one, batch):
            with torch.no_grad():
                one(batch)

        @pytest.mark.memory_limit(peak={peak})
        def test_exact(one, batch):
            predict(one, batch)

        @pytest.mark.memory_limit(peak={peak - 1})
        def test_less(one, batch):
            predict(one, batch)

        @pytest.mark.memory_limit(peak="== {peak}")
        def test_made_in_the_body():
            one, batch = nn.Linear(IN, HIDDEN), torch.zeros(BATCH, IN)
            predict(one, batch)
    """)
    assert ran.outcomes == {"test_exact": "passed", "test_less": "failed", "test_made_in_the_body": "passed"}
    assert ran.properties["test_less"]["memory:body:peak_bytes"] == peak


def test_it_says_what_to_look_at(run: Run) -> None:
    """A failure would be a number: it names the role, the module, the op, what keeps it, the phase, and is short."""
    ran = run("""
        @pytest.mark.memory_limit(activations="4 KiB", peak="1 GiB")
        def test_it(model, batch):
            model(batch).sum().backward()
    """)
    words = ran.words["test_it"]
    assert words.startswith("activations: 0.01 MiB (8,192 bytes), 4,096 bytes (100.0%) above the limit (<= 4 KiB)")
    assert "first   aten.addmm  input of addmm in second" in words
    assert "at their own peak (in forward)" in words
    assert len(words.splitlines()) <= 25
    assert "hidden" not in words and ".py" not in words
    assert "FAILED test_inner.py::test_it - LimitExceeded: activations" in ran.output


def test_other_outcomes_are_left_alone(run: Run) -> None:
    """A limit would mask the first failure, run what is skipped, or hide from a strict xfail."""
    ran = run("""
        pytestmark = pytest.mark.memory_limit(peak=1)

        def test_fails_first(model, batch):
            assert model(batch) is None, "the first reason"

        def test_skips(model, batch):
            model(batch)
            pytest.skip("a reason")

        @pytest.mark.skip
        def test_is_skipped():
            raise AssertionError

        @pytest.mark.xfail(strict=True)
        def test_xfails_by_the_limit(model, batch):
            model(batch)

        @pytest.mark.xfail(strict=True, raises=AssertionError)
        def test_xfails_by_kind(model, batch):
            model(batch)

        @pytest.mark.xfail(strict=True)
        @pytest.mark.memory_limit(peak="1 GiB")
        def test_does_not_xfail(model, batch):
            model(batch)

        @pytest.fixture
        def broken():
            raise ValueError("in a fixture")

        def test_has_no_set_up(broken):
            pass
    """)
    assert ran.outcomes == {
        "test_fails_first": "failed",
        "test_skips": "skipped",
        "test_is_skipped": "skipped in setup",
        "test_xfails_by_the_limit": "xfailed",
        "test_xfails_by_kind": "xfailed",
        "test_does_not_xfail": "failed",
        "test_has_no_set_up": "failed in setup",
    }
    assert "the first reason" in ran.words["test_fails_first"]
    assert "LimitExceeded" not in ran.words["test_fails_first"]
    assert "XPASS(strict)" in ran.words["test_does_not_xfail"]


def test_what_can_be_no_limit_fails_the_collection(run: Run) -> None:
    """A test with a slip in its limit would pass; each is named, with the nearest name, and nothing runs."""
    ran = run("""
        @pytest.mark.memory_limit(activation="1 MiB")
        def test_role(): ...

        @pytest.mark.memory_limit(peak="80 MiBs")
        def test_unit(): ...

        @pytest.mark.memory_limit("80 MiB")
        def test_nameless(): ...

        @pytest.mark.memory_limit()
        def test_empty(): ...

        @pytest.mark.memory_limit(peak="0.5 * backprop")
        def test_reference(): ...

        @pytest.mark.memory_limit(peak="1 MiB", device="cude")
        def test_device(): ...

        def test_fine():
            raise AssertionError("ran")
    """)
    assert ran.status == pytest.ExitCode.INTERRUPTED
    assert not ran.outcomes
    words = ran.words["test_inner.py"]
    for test, problem in {
        "test_role": "there is no limit 'activation' (did you mean 'activations'?)",
        "test_unit": "unknown unit 'MiBs' (did you mean 'MiB'?)",
        "test_nameless": "say of what, as in memory_limit(peak='80 MiB')",
        "test_empty": "limits nothing",
        "test_reference": "a marker knows no reference 'backprop'",
        "test_device": "(did you mean 'cuda'?)",
    }.items():
        (line,) = (line for line in words.splitlines() if f"::{test}: " in line)
        assert problem in line


def test_methods_are_looked_at_too(run: Run) -> None:
    """A slip on a class would go unseen, and unittest's methods have limits that nobody holds."""
    ran = run("""
        import unittest

        @pytest.mark.memory_limit(peak=-1)
        class TestClass:
            def test_method(self): ...

        class TestOld(unittest.TestCase):
            @pytest.mark.memory_limit(peak="1 MiB")
            def test_old(self): ...
    """)
    assert not ran.outcomes
    assert "TestClass::test_method: memory_limit(peak=-1)" in ran.words["test_inner.py::TestClass"]
    assert "TestOld::test_old: memory_limit: TestCaseFunction is no" in ran.words["test_inner.py::TestOld"]


def test_a_marker_that_comes_late_is_read(run: Run) -> None:
    """One that a hook or a fixture adds would count for nothing."""
    ran = run("""
        @pytest.fixture
        def late(request):
            request.node.add_marker(pytest.mark.memory_limit(**request.param))

        @pytest.mark.parametrize("late", [{"peak": 1}, {"peek": 1}], indirect=True, ids=["limit", "slip"])
        def test_it(late, model, batch):
            model(batch)
    """)
    assert "above the limit (<= 1 byte)" in ran.words["test_it[limit]"]
    assert "did you mean 'peak'?" in ran.words["test_it[slip]"]


def test_the_closest_of_several_markers_counts(run: Run) -> None:
    """A test could not have a limit of its own under its class's, or would lose the class's others."""
    ran = run("""
        @pytest.mark.memory_limit(peak=1, activations=1)
        class TestClass:
            @pytest.mark.memory_limit(peak="1 GiB")
            def test_it(self, model, batch):
                model(batch).sum().backward()
    """)
    assert ran.words["TestClass::test_it"].startswith("activations: ")
    assert "peak: " not in ran.words["TestClass::test_it"]


def test_what_other_tests_left_behind_does_not_count(run: Run) -> None:
    """A limit would hold or not by the order of the tests, or the worker they run on."""
    ran = run("""
        LEFT = [torch.zeros(1 << 20)]

        @pytest.fixture(scope="module")
        def shared():
            return {"table": torch.zeros(1 << 10)}

        @pytest.mark.memory_limit(inputs="== 4 KiB", peak="< 8 KiB")
        @pytest.mark.parametrize("again", [1, 2])
        def test_it(again, shared):
            LEFT.append(torch.zeros(256))

        def test_leaves():
            LEFT.append(torch.zeros(1 << 20))
            LEFT.append(nn.Linear(512, 512))

        @pytest.mark.memory_limit(inputs="== 4 KiB", peak="< 8 KiB")
        def test_after(shared):
            shared["table"].add_(1)

        @pytest.mark.memory_limit(peak="> 4 MiB")
        def test_touches():
            LEFT[0].add_(1)
    """)
    assert set(ran.outcomes.values()) == {"passed"}, ran.words


def test_what_fixtures_lead_to_counts(run: Run) -> None:
    """A trainer's model, or one on the test's class, would have no roles, and a tensor it keeps would be missed."""
    ran = run(f"""
        class Trainer:
            def __init__(self, model):
                self.model, self.cache = model, torch.zeros(1 << 18)
                self.optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

        @pytest.fixture
        def trainer(model):
            return Trainer(model)

        @pytest.mark.memory_limit(parameters="== {PARAMETERS}", optimizer="== {PARAMETERS}", retained=">= 1 MiB")
        def test_it(trainer, batch):
            trainer.model(batch).sum().backward()
            trainer.optimizer.step()

        class TestClass:
            def setup_method(self):
                self.model = Two()

            @pytest.mark.memory_limit(parameters="== {PARAMETERS}")
            def test_it(self):
                assert self.model
    """)
    assert ran.outcomes == {"test_it": "passed", "TestClass::test_it": "passed"}, ran.words


def test_models_made_in_the_body_are_found_and_let_go_of(run: Run) -> None:
    """A loop over models would add them up, or their bytes be nobody's."""
    ran = run(f"""
        import weakref

        @pytest.mark.memory_limit(parameters="== {PARAMETERS}", gradients="== {PARAMETERS}", optimizer="> {PARAMETERS}",
                                  activations="== {ACTIVATIONS}")
        def test_it(batch):
            gone = []
            for _ in range(3):
                model = Two()
                optimizer = torch.optim.AdamW(model.parameters(), fused=True)
                model(batch).sum().backward()
                optimizer.step()
                assert not any(reference() for reference in gone)
                gone.append(weakref.ref(model))
                del model, optimizer

        @pytest.mark.memory_limit(activations=0)
        def test_parts(batch):
            model = Two()
            model.second(model.first(batch)).sum().backward()

        @pytest.mark.memory_limit(parameters=1)
        def test_two(batch):
            one, other = Two(), nn.Sequential(nn.Linear(IN, 128))
            (one(batch).sum() + other(batch).sum()).backward()
    """)
    assert ran.outcomes["test_it"] == "passed", ran.words
    assert "first   aten.addmm  input of addmm in second" in ran.words["test_parts"]
    assert "Sequential.0" in ran.words["test_two"] and "first" in ran.words["test_two"]


def test_steps_of_other_shapes_have_their_roles(run: Run) -> None:
    """A parameter without a module, a lazy one, an average, or a ledger within would go unseen or stop the test."""
    ran = run(f"""
        import copy, dbbench

        @pytest.mark.memory_limit(parameters="== 4 KiB", gradients="== 4 KiB", optimizer="== 4 KiB")
        def test_no_module():
            weight = torch.zeros(1024, requires_grad=True)
            optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
            (weight * 2).sum().backward()
            optimizer.step()

        @pytest.mark.memory_limit(parameters="== 8 KiB")
        def test_lazy():
            model = nn.LazyLinear(32, bias=False)
            model(torch.zeros(1, 64)).sum().backward()

        @pytest.fixture
        def average(model):
            return torch.optim.swa_utils.AveragedModel(model)

        @pytest.mark.memory_limit(parameters="== {PARAMETERS}", ema=">= {PARAMETERS}")
        def test_average(model, average, batch):
            model(batch).sum().backward()
            average.update_parameters(model)

        @pytest.mark.memory_limit(parameters="== {PARAMETERS}", gradients="== {PARAMETERS}")
        def test_ledger_within(model, batch):
            with dbbench.Ledger(model) as found:
                model(batch).sum().backward()
            assert found.peak.split["parameters"] == {PARAMETERS}

        class Trainer:
            def __init__(self):
                self.cache = torch.zeros(1 << 10)

        @pytest.fixture
        def trainer():
            return Trainer()

        @pytest.mark.memory_limit(retained=0)
        def test_holder(trainer, batch):
            batch.add_(1)
    """)
    words = ran.words.pop("test_holder")
    assert {ran.outcomes[name] for name in ran.words} == {"passed"}, ran.words
    assert "fixture 'trainer.cache' in test_holder" in words


def test_gradients_that_a_hook_lets_go_of_are_gradients(run: Run) -> None:
    """An update inside the backward would turn gradients into temporaries."""
    ran = run(f"""
        @pytest.mark.memory_limit(gradients="<= {HIDDEN * IN * FLOAT + HIDDEN * FLOAT + OUT * FLOAT}")
        def test_it(batch):
            model = Two()
            for p in model.parameters():
                def update(p):
                    p.data.sub_(p.grad)
                    p.grad = None
                p.register_post_accumulate_grad_hook(update)
            model(batch).sum().backward()

        @pytest.mark.memory_limit(gradients=0)
        def test_some(batch):
            model = Two()
            for p in model.parameters():
                p.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))
            model(batch).sum().backward()
    """)
    assert ran.outcomes == {"test_it": "passed", "test_some": "failed"}, ran.words


def test_fake_tensors_have_limits_too(run: Run) -> None:
    """The memory of a model of 1 TiB could not be tested, or a limit on it would pass unseen."""
    ran = run("""
        from dbbench.measure.private import FakeTensorMode

        @pytest.fixture
        def fake():
            with FakeTensorMode():
                yield

        @pytest.mark.memory_limit(parameters="== 1 TiB", gradients="== 1 TiB")
        def test_large(fake):
            nn.Linear(1 << 19, 1 << 19, bias=False)(torch.zeros(1, 1 << 19)).sum().backward()

        @pytest.mark.memory_limit(peak="1 TiB")
        def test_too_large(fake):
            nn.Linear(1 << 19, 1 << 19, bias=False)(torch.zeros(1, 1 << 19)).sum().backward()

        @pytest.mark.memory_limit(peak="1 GiB")
        def test_entered_inside():
            with FakeTensorMode():
                nn.Linear(1 << 19, 1 << 19)(torch.zeros(1, 1 << 19))

        @pytest.mark.memory_limit(parameters="1 MiB")
        def test_ledger_inside(ledger):
            with FakeTensorMode():
                with ledger():
                    nn.Linear(1 << 19, 1 << 19)(torch.zeros(1, 1 << 19))
    """)
    assert ran.outcomes.pop("test_large") == "passed", ran.words
    assert set(ran.outcomes.values()) == {"failed"}
    assert "body, fake: " in ran.words["test_too_large"]
    assert "enters FakeTensorMode inside" in ran.words["test_entered_inside"]
    assert "parameters: 1,048,578.00 MiB" in ran.words["test_ledger_inside"]


def test_nothing_seen_is_no_success(run: Run) -> None:
    """A limit would hold for bytes that nobody counted."""
    ran = run("""
        pytestmark = pytest.mark.memory_limit(peak="1 GiB")

        def test_no_tensor():
            pass

        def test_another_device():
            torch.zeros(1 << 20, device="meta")

        def test_no_ledger(ledger):
            torch.zeros(1 << 20)

        def test_no_step(assert_peak):
            pass

        @pytest.fixture
        def open_ledger(ledger, model):
            with ledger(model) as found:
                yield found

        def test_open(open_ledger, model, batch):
            model(batch)
    """)
    assert set(ran.outcomes.values()) == {"failed"}
    assert "no tensor on cpu was alive" in ran.words["test_no_tensor"]
    assert "no tensor on cpu was alive" in ran.words["test_another_device"]
    assert "opened no ledger" in ran.words["test_no_ledger"]
    assert "measured no step" in ran.words["test_no_step"]
    assert "still open" in ran.words["test_open"]


def test_bytes_on_another_device_are_no_success() -> None:
    """A test that trains on a GPU would keep to any limit, for what was counted is on the CPU."""
    with WatchingLedger() as ledger:
        torch.zeros(1 << 10)
    require_seen(ledger, False, "test_it")
    with pytest.raises(BadInput, match='it allocates on CUDA, and bytes were counted on cpu: write device="cuda"'):
        require_seen(ledger, True, "test_it")
