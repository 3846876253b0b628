"""``@pytest.mark.memory_limit``: which bytes a marked test answers for, and under which role."""

from __future__ import annotations

import pytest
import torch
from inner_run import ACTIVATIONS, FLOAT, HIDDEN, IN, OUT, PARAMETERS, Run

from dbbench.errors import BadInput
from dbbench.pytest_plugin.watching import WatchingLedger, require_seen


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
