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
from jaxcnn.flags import parse
from jaxcnn.models import create_model
from jaxcnn.runs.initial_state import initial_state
from jaxcnn.runs.program import train_step
from jaxcnn.runs.restore import load_run
from jaxcnn.runs.setup import make_plan
from jaxcnn.runs.stepper import stepper_for
from jaxcnn.runs.warnings import warnings_of
from jaxcnn.train.averages import EMA
from jaxcnn.train.duration import epochs, examples, steps
from jaxcnn.train.groups import Group, check_groups, group_lines, joined, split, while_frozen
from jaxcnn.train.optimizers import LAMB, LARS, SGD, Adam, Optax, RMSProp, at_step, build_optimizer
from jaxcnn.train.schedules import Constant
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


@pytest.mark.parametrize("fields", [{}, {"accumulate": 2, "optimizer": Adam(RATE, weight_decay=0.1)}])
def test_what_is_frozen_for_100_steps_keeps_its_bits_and_then_begins_anew(fields):
    """Until then the run is that of one that is frozen for good; the next step is the first of a new optimizer."""
    until = (Group("params/conv1/*", freeze_until=steps(100)),)
    held = experiment(clip_norm=1.0, groups=until, **fields)
    first, state, _, measured = stepped(held, 100)
    _, expected, _, norm = stepped(dataclasses.replace(held, groups=FROZEN), 100)
    for there, then in ((state, first), (state.average, first.average)):
        assert bits(there.params["conv1"]) == bits(then.params["conv1"])
        assert bits(there.params["fc1"]) != bits(then.params["fc1"])
    close = functools.partial(np.testing.assert_allclose, rtol=2e-3, atol=1e-5)
    jax.tree.map(close, (state.params, measured["grad_norm"]), (expected.params, norm["grad_norm"]))
    at_rest = [state.opt_state[1].inner_states["0"] for state in (first, state)]
    assert bits(at_rest[0])[:-1] == bits(at_rest[1])[:-1]  # the last leaf is the schedule's step
    _, after, _, _ = stepped(held, 101)
    moved = jax.tree.map(lambda a, b: np.asarray(a - b), state.params["conv1"], after.params["conv1"])
    if fields:  # Adam's first step is the rate times the sign, whatever the gradient, and the decay
        sign = moved["kernel"] / RATE - 0.1 * np.asarray(state.params["conv1"]["kernel"])
        np.testing.assert_allclose(np.abs(sign), 1, rtol=1e-2)
    else:  # the momentum has nothing but this step's gradient, and the update is the rate times it
        trace = after.opt_state[1].inner_states["0"].inner_state[1][0].trace["conv1"]
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-7), moved, scaled(trace))
    assert all(np.any(leaf) for leaf in jax.tree.leaves(moved))


def scaled(tree):
    return jax.tree.map(lambda leaf: RATE * leaf, tree)


def test_a_gradient_that_is_thrown_away_may_be_not_finite_and_weights_of_minus_0_stay():
    groups = (Group("params/a", freeze_until=steps(2)),)
    old, new = {"a": jnp.float32(-0.0)}, {"a": jnp.float32("nan")}
    assert [bits(while_frozen(old, new, groups, jnp.int32(step))) for step in (1, 2)] == [bits(old), bits(new)]


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


def test_seeds_that_train_together_stop_and_resume_with_frozen_layers(tmp_path):
    """As one program of two nets, with momentum and an average; the same as without the stops, one before and one after
    the release of batch norm, and what is frozen has its first bits."""
    later = Group("params/bn1/*", freeze_until=examples(6 * 16))
    groups = (*FROZEN, later, Group("*/bias", rate=2.0, weight_decay=0.0))
    data = dataclasses.replace(make(0).data, evaluation_splits=(), test_splits=())
    experiments = [make(seed, groups=groups, data=data, schedule=Constant(), duration=steps(12)) for seed in (0, 1)]
    whole, stopped = ([tmp_path / name / str(seed) for seed in (0, 1)] for name in ("whole", "stopped"))
    for path in (*whole, *stopped):
        path.parent.mkdir(exist_ok=True)
    _, said = train(whole, experiments)
    assert "group params/conv1/*: 2 arrays, 224 values, frozen\n" in said
    assert "group params/bn1/*: 2 arrays, 16 values, frozen until step 6\n" in said
    assert "group */bias: 1 arrays, 4 values, learning rate times 2, weight decay 0" in said
    assert "the other parameters: 1 arrays, 32 values, as the optimizer says" in said
    first = [stepper_for([make_plan(each)]).create()[0] for each in experiments]
    for patience in (4, 6):
        asked = itertools.chain([False] * patience, [True], itertools.repeat(False))
        outcomes, _ = train(stopped, experiments, lambda asked=asked: next(asked))
        assert [outcome.state for outcome in outcomes] == ["preempted"] * 2
        for seed in (0, 1):
            state = load_run(stopped[seed]).state
            for part in (state, state.average):
                held = [bits(part.params[name]) == bits(first[seed].params[name]) for name in ("conv1", "bn1", "fc1")]
                assert held == [True, state.step <= 6, False]
    assert state.step > 6
    train(stopped, experiments)
    for seed in (0, 1):
        assert metrics(stopped[seed]) == metrics(whole[seed])
        ours, theirs = (load_run(paths[seed]).state for paths in (stopped, whole))
        for part in ("params", "stats", "opt_state", "average"):
            assert bits(getattr(ours, part)) == bits(getattr(theirs, part))
        assert bits(ours.params["conv1"]) == bits(first[seed].params["conv1"]) == bits(ours.average.params["conv1"])


def test_mistakes_are_one_sentence():
    params = jax.eval_shape(lambda: initial_state(made := experiment(groups=()), build(made))).params
    for groups, message in (
        ((Group("params/conv2/*", freeze=True),), r"'params/conv2/\*' matches no parameter; did you mean 'params/conv"),
        ((Group("batch_stats/*"),), "matches no parameter; there is, for instance, 'params/bn1/bias'"),
        ((Group("*/bias"), Group("params/fc1/bias")), r"'params/fc1/bias' matches belongs to '\*/bias' before it"),
        ((Group("*", freeze=True),), "every parameter is frozen"),
        ((Group("*1/*", freeze_until=steps(2)),), "every parameter is frozen at first"),
    ):
        with pytest.raises(UserError, match=message):
            check_groups(params, groups)
    with pytest.raises(UserError, match=r"'params/conv2/\*' matches no parameter"):
        make_plan(experiment(groups=(Group("params/conv2/*", freeze=True),)))
    for fields, message in (
        ({"rate": 0.0}, "rate of 'x' is 0.0; it must be positive, and finite; freeze=True keeps"),
        ({"weight_decay": -1.0}, "weight_decay of 'x' is -1.0; it must be at least 0"),
        ({"rate": float("nan")}, "rate of 'x' is nan"),
        ({"freeze": True, "freeze_until": epochs(1)}, "'x' has freeze_until and freeze=True"),
        ({"freeze_until": epochs(0)}, "freeze_until of 'x' is 0; give it a length"),
        ({"freeze": True, "rate": 2.0}, "frozen, so that it has neither a rate nor a weight decay"),
    ):
        with pytest.raises(UserError, match=message):
            Group("x", **fields)
    with pytest.raises(UserError, match="Optax has none to replace"):
        build_optimizer(Optax.of(optax.sgd(0.1)), lambda step: 0.1, None, (Group("x", weight_decay=0.0),))
    with pytest.raises(UserError, match=r"groups is a Group; give a tuple"):
        experiment(groups=Group("x"))
    assert group_lines(params, ()) == []
    late = make_plan(experiment(groups=(Group("params/conv1/*", freeze_until=epochs(9)),)))
    assert "groups: 'params/conv1/*' is frozen until step 40, and the run ends at step 24" in warnings_of(late)


def build(made):
    return build_optimizer(made.optimizer, lambda step: 0.1, None, made.groups)


def test_when_a_group_is_released_is_a_flag(tmp_path):
    file = tmp_path / "groups.py"
    file.write_text(
        "import jaxcnn as jc\n\n\ndef experiment() -> jc.Experiment:\n    "
        'return jc.Experiment(jc.create_model("lenet5"), jc.Data((32, 32, 1)), groups=(jc.Group("*/bias"),))\n'
    )
    flag = "--groups.0.freeze-until"
    for words, until in (([], None), ([flag, "2epochs"], epochs(2)), ([flag, "None"], None)):
        assert parse(file, words).experiment.groups == (Group("*/bias", freeze_until=until),)


def test_groups_are_stored_and_a_run_from_before_them_goes_on():
    made = Experiment(create_model("lenet5"), Data((32, 32, 1)), groups=FROZEN, ema=EMA(0.9))
    encoded = config.encode(made)
    assert config.decode(encoded) == made and encoded["groups"][0]["class"] == "jaxcnn:Group"
    before = config.encode(dataclasses.replace(made, groups=()))
    older = {name: value for name, value in before.items() if name not in ("groups", "layer_decay")}
    assert config.changes(older, before) == {}
    last_month = {**encoded, "groups": [{k: v for k, v in encoded["groups"][0].items() if k != "freeze_until"}]}
    assert config.changes(last_month, encoded) == {}
    assert config.changes(older, encoded)["groups.0.freeze"] == (None, True)
