"""The fixtures ``assert_peak`` and ``ledger``, on people's own steps."""

from __future__ import annotations

from inner_run import Run

IN, HIDDEN, OUT, BATCH, FLOAT = 8, 32, 4, 64, 4
PARAMETERS = (IN * HIDDEN + HIDDEN + HIDDEN * OUT + OUT) * FLOAT
ACTIVATIONS = BATCH * HIDDEN * FLOAT

#: A training step of `inner_run.MODEL`.
STEPS = """
        def make_step(width=BATCH):
            model = Two()
            optimizer = torch.optim.AdamW(model.parameters(), fused=True)
            batch = torch.randn(width, IN)

            def step():
                model(batch).sum().backward()
                optimizer.step()
                optimizer.zero_grad()

            return model, optimizer, step
"""


def test_roles_are_those_counted_by_hand(run: Run) -> None:
    """Of a step that nobody explains, roles would be missing, or the optimizer's state not be there yet."""
    exact = {
        "parameters": PARAMETERS,
        "gradients": PARAMETERS,
        "optimizer": 2 * PARAMETERS + 4 * FLOAT,
        "activations": ACTIVATIONS,
    }
    ran = run(f"""{STEPS}
        @pytest.mark.parametrize("given", ["step", "dict", "keywords"])
        def test_exact(assert_peak, given):
            model, optimizer, step = make_step()
            parts = {{"model": model, "optimizer": optimizer}}
            what = parts | {{"step": step}} if given == "dict" else step
            limits = {exact}
            if given == "keywords":
                limits |= parts
            found = assert_peak(what, **limits)
            assert found.peak.split["optimizer"] == {exact["optimizer"]}
            assert {{held.module for held in found.peak.held if held.role == "parameters"}} == {{"first", "second"}}

        def test_less(assert_peak):
            for name, size in {exact}.items():
                with pytest.raises(AssertionError, match=f"^{{name}}: .*{{size:,}} bytes.*, 1 byte"):
                    assert_peak(make_step(), **{{name: size - 1}})
            assert_peak(make_step()[2], activations={ACTIVATIONS - 1})
    """)
    for given in ("step", "dict", "keywords"):
        assert ran.outcomes.pop(f"test_exact[{given}]") == "passed", ran.words[f"test_exact[{given}]"]
    assert ran.outcomes == {"test_less": "failed"}
    assert f"({ACTIVATIONS:,} bytes), 1 byte (" in ran.words["test_less"]
    assert f"assert_peak(make_step()[2], activations={ACTIVATIONS - 1})" in ran.words["test_less"]
    assert "dbbench/pytest_plugin" not in ran.words["test_less"]


def test_references_are_measured_and_do_not_count(run: Run) -> None:
    """A step would be held against another's figures, or the other's model be part of its peak."""
    ran = run(f"""{STEPS}
        def test_declared(assert_peak):
            other, step = make_step(), make_step()[2]
            assert_peak.reference("backprop", other)
            assert_peak(step, activations="<= 1 * backprop", peak="== backprop")
            assert_peak(step, activations="== backprop")

        def test_keyword_and_against(assert_peak):
            step, half = make_step()[2], make_step(width=BATCH // 2)[2]
            assert_peak(half, activations="== 0.5 * backprop", backprop=step)
            assert_peak(half, activations="== 0.5 * backprop", against={{"backprop": step}})
            assert_peak(half, activations="< 0.5 * backprop", against={{"backprop": step}})

        def test_measured_before(assert_peak):
            before = assert_peak.measure(make_step()[2])
            assert_peak(make_step()[2], peak="== ledger", ledger=before)
            assert_peak(make_step()[2], peak="== profile", profile=before.profile())
    """)
    words = ran.words.pop("test_keyword_and_against")
    assert 'assert_peak(half, activations="< 0.5 * backprop", against={"backprop": step})' in words
    assert "at the limit (< 0.5 * backprop = <0.01 MiB, backprop being at 0.01 MiB)" in words
    assert [ran.outcomes[name] for name in ran.words] == ["passed"] * 2, ran.words


def test_slips_are_named_before_anything_is_measured(run: Run) -> None:
    """A misspelt limit would be a reference nobody asked for, and a step without a limit a success."""
    ran = run(f"""{STEPS}
        CALLS = {{
            "role": lambda check, step: check(step, activation="1 MiB"),
            "reference": lambda check, step: check(step, peak="<= backprob", backprop=step),
            "undeclared": lambda check, step: check(step, peak="<= backprop"),
            "nothing": lambda check, step: check(step),
            "name": lambda check, step: check.reference("peak", step),
            "module": lambda check, step: check(Two(), peak="1 MiB"),
            "parameters": lambda check, step: check(lambda batch: None, peak="1 MiB"),
            "maker": lambda check, step: check(make_step, peak="1 MiB"),
            "nothing_seen": lambda check, step: check(lambda: None, peak="1 MiB"),
        }}

        @pytest.mark.parametrize("name", CALLS)
        def test_it(assert_peak, name):
            CALLS[name](assert_peak, make_step()[2])
    """)
    for name, problem in {
        "role": "there is no limit 'activation' (did you mean 'activations'?)",
        "reference": "there is no reference 'backprob' (did you mean 'backprop'?)",
        "undeclared": 'assert_peak.reference("backprop", other_step)',
        "nothing": "no limit to hold",
        "name": "a reference cannot be called 'peak'",
        "module": "not a function that trains once",
        "parameters": "its step takes the parameter 'batch'",
        "maker": "give what it makes",
        "nothing_seen": "no tensor on cpu was alive",
    }.items():
        assert ran.outcomes[f"test_it[{name}]"] == "failed"
        assert "BadInput: assert_peak" in ran.words[f"test_it[{name}]"]
        assert problem in ran.words[f"test_it[{name}]"]
        assert "dbbench/pytest_plugin" not in ran.words[f"test_it[{name}]"]


def test_a_step_that_fails_fails_as_itself(run: Run) -> None:
    """The user's own error would be hidden behind the measurement."""
    ran = run("""
        def test_it(assert_peak):
            def step():
                raise ValueError("the user's own")
            assert_peak(step, peak="1 MiB")
    """)
    assert "the user's own" in ran.words["test_it"]
    assert "BadInput" not in ran.words["test_it"]


def test_what_earlier_steps_leave_counts(run: Run) -> None:
    """A leak would show in no assertion: the losses of earlier steps, with their graphs."""
    ran = run("""
        def test_it(assert_peak, model, batch):
            losses = []

            def step():
                losses.append(model(batch).sum())
                losses[-1].backward(retain_graph=True)

            assert_peak(step, retained="< 1 KiB", warmup=3)
    """)
    assert "graph of" in ran.words["test_it"] and "losses" in ran.words["test_it"]


def test_a_ledger_is_what_the_marker_limits(run: Run) -> None:
    """The marker would measure the whole body, set-up included; each of several ledgers counts, and steps do."""
    ran = run(f"""{STEPS}
        pytestmark = pytest.mark.memory_limit(peak="64 KiB")

        def test_passes(ledger, model, batch):
            torch.zeros(1 << 20)
            with ledger(model, inputs=batch) as found:
                model(batch).sum().backward()
            assert found.peak.split["inputs"] == batch.nbytes

        def test_second(ledger, model, batch):
            for size in (1, 1 << 20):
                with ledger(model):
                    model(batch), torch.zeros(size)

        def test_finds_the_model(ledger, model, batch):
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
            with ledger() as found:
                for _ in range(2):
                    with found.step():
                        model(batch).sum().backward()
                        optimizer.step()
            own = found.account().own_peaks
            assert own["parameters"] == own["gradients"] == own["optimizer"] == {PARAMETERS}

        def test_resident(ledger, model, batch):
            kept = torch.zeros(1 << 20)
            with ledger(model):
                model(batch)

        def test_step(assert_peak):
            unmeasured = torch.zeros(1 << 20)
            assert_peak(make_step()[2], activations="1 MiB")
            assert_peak(make_step(width=1 << 12)[2], activations="1 MiB")
    """)
    assert ran.outcomes["test_passes"] == ran.outcomes["test_finds_the_model"] == "passed", ran.words
    assert "ledger 2, cpu: 4.0" in ran.words["test_second"]
    assert "local 'kept' in test_resident" in ran.words["test_resident"]
    assert "step 2, cpu: " in ran.words["test_step"] and "above the limit (<= 64 KiB)" in ran.words["test_step"]


def test_the_report_and_the_xml_have_the_figures(run: Run, tmp_path: object) -> None:
    """A table that CI keeps would be of some tests only, or without roles."""
    ran = run(
        f"""{STEPS}
        @pytest.mark.memory_limit(activations="{ACTIVATIONS} B")
        def test_marked(model, batch):
            model(batch).sum().backward()

        def test_step(assert_peak):
            assert_peak(make_step()[2], peak="<= 2 * backprop", backprop=make_step()[2])

        def test_plain():
            pass
        """,
        "--memory-report",
        "--junit-xml=out.xml",
    )
    lines = ran.output.splitlines()
    (marked,) = (line for line in lines if "::test_marked" in line)
    assert "body" in marked and f"activations <= {ACTIVATIONS} B (100.0%)" in marked
    steps = [line for line in lines if "::test_step" in line]
    assert len(steps) == 2 and any("peak <= 2 * backprop (50.0%)" in line for line in steps)
    assert not any("::test_plain" in line for line in lines)
    xml = (tmp_path / "out.xml").read_text(encoding="utf-8")  # type: ignore[operator]
    assert f'<property name="memory:body:activations_own_peak_bytes" value="{ACTIVATIONS}"' in xml
    assert 'name="memory:backprop:peak_bytes"' in xml
