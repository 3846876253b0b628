"""Limits on memory in your own tests: a pytest plugin that is there as soon as dbbench is installed.

    import pytest
    from my_package import Model, make_step

    @pytest.mark.memory_limit(peak="80 MiB", activations="12 MiB")
    def test_forward_and_backward(model, batch):             # your own fixtures
        model(batch).square().mean().backward()

    def test_checkpointing_pays(assert_peak):
        model, optimizer, backprop = make_step()
        assert_peak.reference("backprop", backprop)
        assert_peak(make_step(checkpointing=True), activations="<= 0.25 * backprop")

    def test_nothing_is_kept(ledger, model, optimizer, batch):
        with ledger(model, optimizer, inputs=batch) as found:
            model(batch).sum().backward()
            optimizer.step()
        assert found.kept_bytes == 0, found.kept

    @pytest.mark.memory_leaks("0 B", warmup=1)
    def test_nothing_is_left_behind(model, batch):
        model(batch).square().mean().backward()

``pytest --memory-report`` prints what every such test took; the same figures are in the JUnit XML, as properties.
``memory_limit = 80 MiB`` in pytest's ini file, or ``--memory-limit "peak=80 MiB, kept=0 B"``, limits every test of a
session; a test's own marker comes first. A measured test costs about a tenth of a second.

**Leaks.** ``kept`` is what the measured code made and still holds when it is over, without the model's own: a graph in
a list, an output in a hook. ``memory_leaks`` compares what is alive before and after the test, by holder; the body runs
``warmup`` times first, so that gradients and optimizer state are there already.

**What can be limited.** ``peak`` is the largest number of live tensor bytes at any instant, ``kept`` what is held at
the end. The roles (parameters, gradients, optimizer, activations, weight_casts, temporaries, buffers, inputs, ema,
retained, other, unseen) are limited by their *own* peak, the most that a role reaches at any instant:
``activations="12 MiB"`` means that they never exceed
12 MiB, not that they are below it while something else makes the peak. Roles are defined in dbbench's README. A size is
"80 MiB", "1.5 GiB", "80 MB" or a whole number of bytes; counting is exact, so a limit may be the very number.

**The marker** measures the body of the test: a ledger opens as the function is called and closes as it returns.
Several markers (of a class, a module) count together; of the same limit the closest wins. What fixtures made is
resident: it counts in the peak from the start, while what it took to make it does not. More exactly, of what exists
when the body starts those tensors count which were made since this test's set-up began, to which one of its fixtures
leads (or ``self``), or which the body touches. What other tests have left behind does not count, so that a limit does
not depend on their order. Nobody need say what the model is: a module that is called and an optimizer that steps are
noticed, in fixtures and in the body, and are not kept alive. Tensors that fixtures give, and lists and dicts of them,
are ``inputs``; a batch made in the body is whatever becomes of it, often ``retained``. A model that is made in the body
counts from its first byte, its initialisation included.

**The fixture ledger** gives ledgers (`dbbench.Ledger`) for a stretch of the test. Where a test has it the marker's
limits are held against each of them, and not against the body.

**The fixture assert_peak** takes a callable that trains one step, or ``(model, optimizer, step)``. It trains once, so
that the optimizer has its state, and measures the second step. What is not given (``model=``, ``optimizer=``,
``inputs=``, ``ema=``) the first step shows, but for inputs and averages. Of what was there before, that counts which
the step touches or which is given: another method's model in the same test does not. A limit is a comparison
(``<=``, ``<``, ``>=``, ``>``, ``==``; without one ``<=``) and a size, or ``[factor *] reference``: the same figure of
another step, declared by `reference`, as ``backprop=other_step``, in ``against={"backprop": other_step}``, or a ledger
that an earlier call returned. ``optimizer=``, ``inputs=`` and ``ema=`` are limits where they are written as one. It
returns the ledger: ``found.peak``, ``found.table()``, ``found.diff(other)``. A marker's limits are held against every
step that the test measures, not against references.

**Devices.** Bytes are counted on one device: where the model, or the first tensor of a fixture, is; else on the default
device of torch. ``device="cpu" | "cuda" | "fake"`` says it, in the marker too. On CUDA they are the ledger's, what
tensors asked for, without the workspaces of kernels. On fake tensors (a `FakeTensorMode` that a fixture has entered)
limits hold for a model of any size without its memory. A mode that the body enters cannot be seen from around it: open
``ledger`` within. A test whose bytes were somewhere else fails; that none were seen is never taken for a success.

**When it says nothing.** A test that fails, is skipped, or is expected to fail for another reason does so as without
the plugin; limits are looked at last, and one that is exceeded is a failure of the test's call, which
``xfail(strict=True)`` takes as such. What can be no limit (an unknown role, "80 MiBs", the methods of unittest) is an
error at collection.
"""
