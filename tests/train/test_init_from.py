"""Starting from another run's weights: what is taken is equal to the bit, what does not fit is named."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxcnn.errors import UserError
from jaxcnn.models import create_model
from jaxcnn.runs.initial_state import initial_state
from jaxcnn.train.init_from import InitFrom, chosen, overlay
from jaxcnn.train.optimizers import build_optimizer
from jaxcnn.train.state import create_state
from tests.experiments.tiny import experiment
from tests.nets import TinyNet
from tests.tiny_runs import TINY, call, finish, metrics, read


@functools.cache
def state(seed, **fields):
    made = dataclasses.replace(experiment(), seed=seed, model=TinyNet(**fields))
    optimizer = build_optimizer(made.optimizer, lambda step: jnp.float32(0), None)
    return initial_state(made, optimizer)


def arrays(state):
    return {
        path: np.asarray(leaf) for path, leaf in flatten_dict({"params": state.params, **state.stats}, sep="/").items()
    }


def test_everything_is_taken_and_the_average_starts_there():
    fresh, saved = state(1), state(0)
    result, report = overlay(fresh, saved, InitFrom(run="there"))
    for path, array in arrays(result).items():
        np.testing.assert_array_equal(array, arrays(saved)[path])
    assert not np.array_equal(arrays(fresh)["params/conv1/kernel"], arrays(result)["params/conv1/kernel"])
    for ours, average in zip(jax.tree.leaves(result.params), jax.tree.leaves(result.average.params), strict=True):
        np.testing.assert_array_equal(ours, average)
        assert ours is not average
    assert int(result.step) == 0 and report[0].startswith("loaded from there: 8 arrays")
    assert report[1:] == ["skipped there: nothing", "fresh: nothing"]


def test_a_new_head_stays_fresh_and_all_else_is_equal():
    fresh, saved = state(1, classes=7), state(0)
    result, report = overlay(fresh, saved, InitFrom(run="there", exclude=("params/fc1/*",)))
    for path, array in arrays(result).items():
        np.testing.assert_array_equal(array, arrays(fresh if "fc1" in path else saved)[path], err_msg=path)
    assert "fresh: 2 arrays, 63 values (params/fc1/bias, params/fc1/kernel)" in report


@pytest.mark.parametrize(
    "fields, init_from, message",
    [
        ({"classes": 7}, {}, r"params/fc1/kernel: \(8, 4\) there, \(8, 7\) here"),
        ({"norm": False}, {}, "params/bn1/scale: not in this experiment's model"),
        ({}, {"exclude": ("params/haed/*",)}, "the pattern 'params/haed/\\*' matches nothing"),
    ],
)
def test_what_does_not_fit_is_named(fields, init_from, message):
    with pytest.raises(UserError, match=message):
        overlay(state(1, **fields), state(0), InitFrom(run="there", **init_from))
    with pytest.raises(UserError, match="not in there"):
        overlay(state(0), state(1, norm=False), InitFrom(run="there"))


@pytest.mark.parametrize("name", ["resnet50_dcn", "resnet50_dcnv2"])
def test_a_deformable_resnet_takes_all_of_a_plain_ones_weights(name):
    """Its convolutions have the plain ones' paths; only what makes the offsets is new."""

    def shapes(name):
        model, key = create_model(name), jax.random.key(0)
        make = lambda: model.init(key, jnp.zeros((1, 64, 64, 3)), train=False)  # noqa: E731
        return jax.eval_shape(lambda: create_state(make(), optax.identity(), False, None, {}, key))

    plain = shapes("resnet50")
    taken = chosen(shapes(name), plain, InitFrom(run="there", exclude=("*/conv_offset/*",)))
    assert taken == sorted(flatten_dict({"params": plain.params, **plain.stats}, sep="/"))


def test_fine_tuning_through_the_front_door(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    finish(TINY, "--workdir", first, "--log-every", "1steps")
    flags = ["--log-every", "1steps", "--duration", "5steps", "--init-from.run", first, "--init-from.averaged"]
    out = finish(TINY, "--workdir", second, *flags).stdout
    assert f"loaded from {first}" in out and "fresh: nothing" in out
    start, tuned = (next(line["loss"] for line in metrics(run)) for run in (first, second))
    assert tuned < 0.5 * start
    assert read(second, "config.json")["init_from"]["run"] == str(first)
    done = call(TINY, "--workdir", tmp_path / "third", "--init-from.run", tmp_path / "none")
    assert done.returncode == 2 and "none does not exist" in done.stderr and not (tmp_path / "third").exists()


def test_two_arrays_never_get_one_name():
    arrays = {"params/old/kernel": 1, "params/new/kernel": 2}
    both = InitFrom(run="there", rename=(("params/old", "params/new"),))
    for order in (arrays, dict(reversed(arrays.items()))):
        with pytest.raises(UserError, match="two arrays of there would be 'params/new/kernel' here"):
            both.renamed(order)
    moved = InitFrom(run="there", rename=(("params/old", "params/new"), ("params/new", "params/old")))
    assert moved.renamed(arrays) == {"params/new/kernel": 1, "params/old/kernel": 2}


@pytest.mark.parametrize("there, here", [("batch", "frozen_batch"), ("frozen_batch", "batch")])
def test_a_frozen_batch_norm_takes_what_a_batch_norm_has(there, here):
    """The features at step 0 are those of the net whose weights are taken, its scales and biases among them."""

    def made(norm, seed, classes):
        model = create_model("efficientnet_lite0", width=0.25, depth=0.3, norm=norm, classes=classes)
        images = jnp.zeros((1, 32, 32, 3))
        variables = jax.jit(lambda key: model.init(key, images, train=False))(jax.random.key(seed))
        flat = flatten_dict(variables, sep="/")
        shift = lambda path, array: array + 0.1 if path.endswith(("/scale", "/bias", "/mean", "/var")) else array  # noqa: E731
        variables = unflatten_dict({path: shift(path, array) for path, array in flat.items()}, sep="/")
        return model, create_state(variables, optax.identity(), False, None, {}, jax.random.key(0))

    (theirs, saved), (ours, fresh) = made(there, 0, 4), made(here, 1, 3)
    result, report = overlay(fresh, saved, InitFrom(run="there", exclude=("params/head/*",)))
    images = jax.random.normal(jax.random.key(2), (2, 40, 48, 3))
    features = lambda model, state: jax.jit(  # noqa: E731
        lambda variables: model.apply(variables, images, train=False, method="features")["final"]
    )({"params": state.params, **state.stats})
    np.testing.assert_allclose(features(ours, result), features(theirs, saved), rtol=1e-5, atol=1e-6)
    assert np.abs(features(ours, fresh) - features(theirs, saved)).max() > 0.01
    name = "backbone/stem_bn/scale"
    kinds = {"batch": "params", "frozen_batch": "batch_stats"}
    np.testing.assert_array_equal(arrays(result)[f"{kinds[here]}/{name}"], arrays(saved)[f"{kinds[there]}/{name}"])
    assert "fresh: 2 arrays" in report[2] and "head/fc" in report[2]
    with pytest.raises(UserError, match=r"head/fc/kernel: \(\d+, 4\) there, \(\d+, 3\) here"):
        chosen(fresh, saved, InitFrom(run="there"))
