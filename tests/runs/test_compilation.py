"""Compilation ahead of time: while Python traces, its garbage collection rests, and goes on whatever happens."""

import gc

import jax
import pytest

from jaxcnn.runs import initial_state
from jaxcnn.runs.compilation import compile_ahead
from jaxcnn.runs.initial_state import abstract_state
from jaxcnn.runs.setup import make_plan
from jaxcnn.runs.stepper import stepper_for
from tests.compilation import quick
from tests.experiments.tiny import experiment as tiny


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
