"""Compilation ahead of time: while Python traces, its garbage collection rests, and goes on whatever happens."""

import functools
import gc
import threading
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.models.layers import INITIALIZERS
from jaxcnn.ops.platform import platform, traced_for
from jaxcnn.runs import initial_state, stepper
from jaxcnn.runs.compilation import HIT, MISS, Compiled, beside, compile_ahead, lower_ahead
from jaxcnn.runs.initial_state import abstract_state
from jaxcnn.runs.once import Once
from jaxcnn.runs.run_directory import open_run
from jaxcnn.runs.setup import make_plan
from jaxcnn.runs.stepper import stepper_for
from jaxcnn.runs.training_log import TrainingLog
from tests.compilation import quick
from tests.experiments.tiny import experiment as tiny
from tests.runs.test_seeds import make, train
from tests.tiny_runs import metrics


def test_garbage_is_collected_before_and_after_a_trace_and_not_within():
    seen = []

    def double(x):
        seen.append(gc.isenabled())
        return 2 * x

    assert gc.isenabled()
    assert compile_ahead(quick(double), jax.ShapeDtypeStruct((3,), "float32")).call(jax.numpy.ones(3)).sum() == 6
    assert seen == [False] and gc.isenabled()


def test_a_trace_that_fails_leaves_it_on_and_one_that_was_without_leaves_it_off():
    def refuse(x):
        raise ValueError("refused")

    with pytest.raises(ValueError, match="refused"):
        compile_ahead(quick(refuse), jax.ShapeDtypeStruct((3,), "float32"))
    assert gc.isenabled()
    gc.disable()
    try:
        compile_ahead(quick(lambda x: x), jax.ShapeDtypeStruct((3,), "float32"))
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_the_shapes_of_a_state_and_the_state_are_traced_so(monkeypatch):
    seen = []
    init = initial_state._init
    monkeypatch.setattr(initial_state, "_init", lambda *given: seen.append(gc.isenabled()) or init(*given))
    plan = make_plan(tiny())
    abstract_state(plan.experiment, plan.mesh)
    stepper_for([plan]).create()
    assert seen == [False, False] and gc.isenabled()


def test_a_program_is_compiled_beside_what_follows():
    own, started, ended = threading.current_thread(), threading.Event(), threading.Event()

    class Lowered:
        def compile(self, compiler_options):
            assert compiler_options == {"xla_backend_optimization_level": 1} and threading.current_thread() is not own
            started.set()
            assert ended.wait(60)
            return types.SimpleNamespace(memory_analysis=lambda: None)

    options = {"xla_backend_optimization_level": 1}
    compiled = beside(lower_ahead(types.SimpleNamespace(lower=lambda *shapes: Lowered()), options=options))
    assert started.wait(60) and not compiled.done()  # while this thread goes on
    ended.set()
    assert compiled.result().seconds > 0


def test_the_first_steps_do_not_wait_for_the_evaluation_step(tmp_path, monkeypatch):
    made, compiled, steps = make(0), threading.Event(), []
    lower, took = stepper.lower_evaluation_step, TrainingLog.took

    def late(*given):
        compile_it = lower(*given)
        return lambda: compiled.wait(60) and compile_it()

    def count(log, step, metrics):
        steps.append(step)
        if step == 2:  # of the six before the first evaluation
            compiled.set()
        took(log, step, metrics)

    monkeypatch.setattr(stepper, "lower_evaluation_step", late)
    monkeypatch.setattr(TrainingLog, "took", count)
    (outcome,), told = train([tmp_path / "run"], [made])
    assert outcome.state == "done" and steps == list(range(1, 25)) and compiled.is_set()
    assert told.count("evaluation step compiled: ") == 1
    lines = metrics(tmp_path / "run")
    assert {line["step"] for line in lines if "epoch" not in line} == {6, 12, 18, 24}
    losses = [line["loss"] for line in lines if "epoch" in line]
    assert losses[-1] < losses[0]


def test_what_is_traced_beside_is_traced_for_the_platform_of_the_caller():
    with traced_for("gpu"):
        assert beside(platform).result() == "gpu"
    assert beside(platform).result() == "cpu"


def test_an_evaluation_step_that_cannot_be_traced_ends_the_run_before_it_trains(tmp_path, monkeypatch):
    def refuse(*given):
        raise TypeError("no such argument")

    monkeypatch.setattr(stepper, "lower_evaluation_step", refuse)
    with pytest.raises(TypeError, match="no such argument"):
        train([tmp_path / "run"], [make(0)])
    run = open_run(tmp_path / "run")
    assert run.status()["state"] == "failed" and not list(run.metrics())


def test_nothing_else_is_traced_or_compiled_while_the_train_step_is_traced(tmp_path, monkeypatch):
    told, own = [], threading.current_thread()

    def tell(name):
        real = getattr(stepper, name)

        def called(*given):
            told.append((name, threading.current_thread() is own))
            made = real(*given)
            told.append((f"{name} is done", threading.current_thread() is own))
            return made

        monkeypatch.setattr(stepper, name, called)

    for name in ("lower_train_step", "compile_initial_state", "lower_evaluation_step"):
        tell(name)
    (outcome,), _ = train([tmp_path / "run"], [make(0)])
    assert outcome.state == "done" and told[:2] == [("lower_train_step", True), ("lower_train_step is done", True)]
    assert ("compile_initial_state", True) in told and ("lower_evaluation_step", False) in told
    losses = [line["loss"] for line in metrics(tmp_path / "run") if "epoch" in line]
    assert losses[-1] < losses[0]


def test_an_evaluation_step_that_cannot_be_compiled_ends_the_run(tmp_path, monkeypatch):
    def refuse():
        raise RuntimeError("no such instruction")

    monkeypatch.setattr(stepper, "lower_evaluation_step", lambda *given: refuse)
    with pytest.raises(RuntimeError, match="no such instruction"):
        train([tmp_path / "run"], [make(0)])
    assert open_run(tmp_path / "run").status()["state"] == "failed"


def test_a_program_that_is_there_is_not_traced_for_the_next_seed():
    once, made = Once(), Compiled(None, 3.0, 7, "miss")
    assert once.lowered("evaluation", lambda: lambda: made)() is made
    again = once.lowered("evaluation", lambda: pytest.fail("it is there"))()
    assert again == Compiled(None, 0.0, 7, "shared")


def test_the_initial_state_has_the_same_bits_with_fewer_optimizations():
    plan = make_plan(tiny())
    (state,) = stepper_for([plan]).create()
    initial = functools.partial(initial_state.initial_state, plan.experiment, plan.optimizer)
    optimized = jax.jit(initial, compiler_options={"xla_backend_optimization_level": 3})(np.uint32(0))
    for ours, theirs in zip(jax.tree.leaves(state), jax.tree.leaves(optimized), strict=True):
        if not jnp.issubdtype(ours.dtype, jax.dtypes.prng_key):
            np.testing.assert_array_equal(ours, theirs)


def every_initialisation(key):
    """{its name: arrays of some shapes}."""
    shapes = ((3, 3, 5, 7), (1, 1, 33, 64), (9, 130))
    return {
        name: [init(jax.random.fold_in(key, number), shape) for number, shape in enumerate(shapes)]
        for name, init in INITIALIZERS.items()
    }


def test_every_initialisation_has_the_same_bits_with_fewer_optimizations():
    few, all_of_them = (
        jax.jit(every_initialisation, compiler_options={"xla_backend_optimization_level": level})(jax.random.key(0))
        for level in (1, 3)
    )
    jax.tree.map(np.testing.assert_array_equal, few, all_of_them)
    assert all(np.std(each[0]) > 0 for each in few.values())


def test_a_program_knows_its_own_cache_beside_that_of_another_thread():
    def others():
        for name in (HIT, MISS):
            jax.monitoring.record_event(name)

    class Lowered:
        def compile(self, compiler_options):
            thread = threading.Thread(target=others)
            thread.start()
            thread.join()
            return types.SimpleNamespace(memory_analysis=lambda: None)

    assert compile_ahead(types.SimpleNamespace(lower=lambda *shapes: Lowered())).cache == "off"
