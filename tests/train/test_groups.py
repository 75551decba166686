"""Groups of parameters: frozen ones keep their bits, others their own rate and decay, through every kind of run."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcnn import config
from jaxcnn.errors import UserError
from jaxcnn.experiment import Data, Experiment
from jaxcnn.models import create_model
from jaxcnn.runs.program import train_step
from jaxcnn.runs.restore import load_run
from jaxcnn.runs.setup import initial_state, make_plan
from jaxcnn.train.duration import steps
from jaxcnn.train.groups import Group, check_groups, group_lines, joined, split
from jaxcnn.train.optimizers import LAMB, LARS, SGD, Adam, Optax, RMSProp, at_step, build_optimizer
from jaxcnn.train.schedules import Constant
from jaxcnn.train.step import EMA
from tests.compilation import quick
from tests.runs.test_seeds import make, metrics, train

RATE, FROZEN = 0.05, (Group("params/conv1/*", freeze=True),)


def experiment(**fields):
    return dataclasses.replace(make(0), **{"optimizer": SGD(RATE, weight_decay=0.1), "groups": FROZEN, **fields})


def stepped(made, count):
    """(the first state, the last one, the step as JAX wrote it)."""
    rate = lambda step: jnp.float32(RATE)  # noqa: E731
    optimizer = build_optimizer(made.optimizer, rate, made.clip_norm, made.groups)
    step = train_step(made, optimizer, rate, log_every=1)
    examples = made.data.source.open("train")
    rows = [examples[i] for i in range(16)]
    batch = {
        "image": np.stack([row["image"] for row in rows]),
        "label": np.array([row["label"] for row in rows], np.int32),
    }
    first = state = initial_state(made, optimizer)
    compiled = quick(step)
    for _ in range(count):
        state, measured = compiled(state, {}, batch)
    return first, state, str(jax.make_jaxpr(step)(first, {}, batch)), jax.device_get(measured)


def bits(tree):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_what_is_frozen_keeps_its_bits_for_100_steps_and_has_no_gradient(accumulate):
    made = experiment(accumulate=accumulate, clip_norm=1.0)
    first, last, program, measured = stepped(made, 100)
    for there, then in ((last, first), (last.average, first.average)):
        assert bits(there.params["conv1"]) == bits(then.params["conv1"])
        for path in ("fc1", "bn1"):
            assert all(a != b for a, b in zip(bits(there.params[path]), bits(then.params[path]), strict=True))
    assert measured["grad_norm"] > 0
    assert "conv1" not in str(jax.tree_util.tree_structure(last.opt_state))  # no momentum either
    free, _, whole, _ = stepped(dataclasses.replace(made, groups=()), 1)
    assert "conv1" in str(jax.tree_util.tree_structure(free.opt_state))
    assert whole.count("conv_general_dilated[") == 2 and program.count("conv_general_dilated[") == 1


def test_rates_and_decays_of_groups_against_numpy():
    """SGD with momentum by hand, each array with its own rate and decay; decay touches kernels alone."""
    groups = (Group("*/bias", rate=2.0), Group("params/a/*", rate=0.5, weight_decay=0.3), Group("*c/*", freeze=True))
    params = {name: {"kernel": jnp.full(3, 1.5), "bias": jnp.full(2, -0.5)} for name in "abc"}
    expected = {"a": (0.5, 0.3), "b": (1.0, 0.1)}
    schedule = lambda step: 0.1 / (1 + step)  # noqa: E731
    built = build_optimizer(SGD(0.1, momentum=0.9, weight_decay=0.1), schedule, None, groups)
    trained, frozen = split(params, groups)
    assert frozen == {"c": {"kernel": params["c"]["kernel"]}} and list(joined(trained, frozen)) == ["a", "b", "c"]
    state, gradients = built.init(trained), jax.tree.map(jnp.ones_like, trained)
    momentum = {}
    for step in range(3):
        updates, state = built.update(gradients, at_step(state, jnp.int32(step)), trained)
        before, trained = trained, optax.apply_updates(trained, updates)
        for name, part in before.items():
            for kind, value in part.items():
                rate, decay = (2.0, 0.0) if kind == "bias" else expected[name]
                velocity = 0.9 * momentum.get((name, kind), 0) + 1 + decay * np.asarray(value)
                momentum[name, kind] = velocity
                np.testing.assert_allclose(trained[name][kind], value - 0.1 / (1 + step) * rate * velocity, rtol=1e-6)


@pytest.mark.parametrize("optimizer", [SGD(), Adam(), RMSProp(), LARS(), LAMB(), Optax.of(optax.adam(1.0))])
def test_every_optimizer_takes_groups(optimizer):
    """Half of the rate halves the first update, and a group that changes nothing changes nothing."""
    params = {"a": {"kernel": jnp.arange(1.0, 7)}, "b": {"kernel": jnp.arange(1.0, 7)}}
    gradients = jax.tree.map(lambda x: x + 1, params)

    def update(groups):
        built = build_optimizer(optimizer, lambda step: jnp.float32(0.1), None, groups)
        return built.update(gradients, built.init(params), params)[0]

    same = update((Group("params/a/*"),))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), same, update(()))
    half = update((Group("params/a/*", rate=0.5),))
    np.testing.assert_allclose(half["a"]["kernel"], 0.5 * same["a"]["kernel"], rtol=1e-6)
    np.testing.assert_array_equal(half["b"]["kernel"], same["b"]["kernel"])


def test_seeds_that_train_together_stop_and_resume_with_a_frozen_layer(tmp_path):
    """As one program of two nets, with momentum and an average; the same as without the stop."""
    groups = (*FROZEN, Group("*/bias", rate=2.0, weight_decay=0.0))
    data = dataclasses.replace(make(0).data, evaluation_splits=(), test_splits=())
    experiments = [make(seed, groups=groups, data=data, schedule=Constant(), duration=steps(12)) for seed in (0, 1)]
    whole, stopped = ([tmp_path / name / str(seed) for seed in (0, 1)] for name in ("whole", "stopped"))
    for path in (*whole, *stopped):
        path.parent.mkdir(exist_ok=True)
    _, said = train(whole, experiments)
    assert "group params/conv1/*: 2 arrays, 224 values, frozen" in said
    assert "group */bias: 2 arrays, 12 values, learning rate times 2, weight decay 0" in said
    assert "the other parameters: 2 arrays, 40 values, as the optimizer says" in said
    asked = itertools.chain([False] * 8, [True], itertools.repeat(False))
    outcomes, _ = train(stopped, experiments, lambda: next(asked))
    assert [outcome.state for outcome in outcomes] == ["preempted"] * 2
    train(stopped, experiments)
    for seed in (0, 1):
        assert metrics(stopped[seed]) == metrics(whole[seed])
        first = make_plan(experiments[seed])
        first = initial_state(first.experiment, first.optimizer)
        states = [load_run(paths[seed]).state for paths in (whole, stopped)]
        for state in states:
            assert bits(state.params["conv1"]) == bits(first.params["conv1"]) == bits(state.average.params["conv1"])
            assert bits(state.params["fc1"]) != bits(first.params["fc1"])
        assert bits((states[0].params, states[0].opt_state)) == bits((states[1].params, states[1].opt_state))


def test_mistakes_are_one_sentence():
    params = jax.eval_shape(lambda: initial_state(made := experiment(groups=()), build(made))).params
    for groups, message in (
        ((Group("params/conv2/*", freeze=True),), r"'params/conv2/\*' matches no parameter; did you mean 'params/conv"),
        ((Group("batch_stats/*"),), "matches no parameter; there is, for instance, 'params/bn1/bias'"),
        ((Group("*/bias"), Group("params/fc1/bias")), r"'params/fc1/bias' matches belongs to '\*/bias' before it"),
        ((Group("*", freeze=True),), "every parameter is frozen"),
    ):
        with pytest.raises(UserError, match=message):
            check_groups(params, groups)
    with pytest.raises(UserError, match=r"'params/conv2/\*' matches no parameter"):
        make_plan(experiment(groups=(Group("params/conv2/*", freeze=True),)))
    for fields, message in (
        ({"rate": 0.0}, "rate of 'x' is 0.0; it must be positive, and finite; freeze=True keeps"),
        ({"weight_decay": -1.0}, "weight_decay of 'x' is -1.0; it must be at least 0"),
        ({"rate": float("nan")}, "rate of 'x' is nan"),
        ({"freeze": True, "rate": 2.0}, "frozen, so that it has neither a rate nor a weight decay"),
    ):
        with pytest.raises(UserError, match=message):
            Group("x", **fields)
    with pytest.raises(UserError, match="Optax has none to replace"):
        build_optimizer(Optax.of(optax.sgd(0.1)), lambda step: 0.1, None, (Group("x", weight_decay=0.0),))
    with pytest.raises(UserError, match=r"groups is a Group; give a tuple"):
        experiment(groups=Group("x"))
    assert group_lines(params, ()) == []


def build(made):
    return build_optimizer(made.optimizer, lambda step: 0.1, None, made.groups)


def test_groups_are_stored_and_a_run_from_before_them_goes_on():
    made = Experiment(create_model("lenet5"), Data((32, 32, 1)), groups=FROZEN, ema=EMA(0.9))
    encoded = config.encode(made)
    assert config.decode(encoded) == made and encoded["groups"][0]["class"] == "jaxcnn:Group"
    before = config.encode(dataclasses.replace(made, groups=()))
    older = {name: value for name, value in before.items() if name != "groups"}
    assert config.changes(older, before) == {}
    assert config.changes(older, encoded)["groups.0.freeze"] == (None, True)
