"""The train step: accumulation, averages, precision of the sums, divergence; and the metrics against numpy."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.data.synthetic import Synthetic
from jaxcnn.data.transforms import UNIT
from jaxcnn.errors import UserError
from jaxcnn.experiment import Data, Experiment
from jaxcnn.models import GAP, create_model
from jaxcnn.runs.initial_state import initial_state
from jaxcnn.tasks.classification import Classification, classification_sums
from jaxcnn.tasks.losses import CrossEntropy
from jaxcnn.tasks.objective import make_evaluation_step, make_loss
from jaxcnn.train.averages import EMA
from jaxcnn.train.optimizers import SGD, build_optimizer
from jaxcnn.train.schedules import Plateau
from jaxcnn.train.state import create_state
from jaxcnn.train.step import make_train_step
from tests.nets import TinyNet

SHAPE = (9, 9, 3)
EXPERIMENT = Experiment(
    model=TinyNet(), data=Data(image_shape=SHAPE, source=Synthetic(image_shape=SHAPE, classes=4)), optimizer=SGD(0.1)
)


def batch(size=16, start=0):
    examples = EXPERIMENT.data.source.open("train")
    rows = [examples[i] for i in range(start, start + size)]
    return {
        "image": jnp.stack([row["image"] for row in rows]),
        "label": jnp.array([row["label"] for row in rows], jnp.int32),
    }


@functools.cache
def program(experiment, log_every=1):
    optimizer = build_optimizer(experiment.optimizer, lambda step: jnp.float32(0.1), experiment.clip_norm)
    loss = make_loss(experiment.task, experiment.model, UNIT)
    step = make_train_step(
        loss,
        optimizer,
        lambda step: jnp.float32(0.1),
        accumulate=experiment.accumulate,
        ema=experiment.ema,
        log_every=log_every,
    )
    return initial_state(experiment, optimizer), jax.jit(functools.partial(unfrozen, step))


def unfrozen(step, state, batch):
    """The step of a net of which nothing is frozen, its sums beside its scalars."""
    state, metrics = step(state, {}, batch)
    return state, metrics.pop("sums") | metrics


def run(experiment, steps=10, log_every=1):
    state, step = program(experiment, log_every)
    history = []
    for number in range(steps):
        state, metrics = step(state, batch(start=16 * (number % 4)))
        history.append(jax.device_get(metrics))
    return state, history


def close(one, other, **tolerance):
    jax.tree.map(functools.partial(np.testing.assert_allclose, **tolerance), one, other)


def test_the_loss_falls_and_the_state_moves():
    state, history = run(EXPERIMENT, 40)
    losses = [m["loss"] / m["count"] for m in history]
    assert losses[-1] < 0.3 * losses[0]
    assert int(state.step) == 40 and int(state.bad_step) == 0
    assert history[-1]["accuracy"] / history[-1]["count"] > 0.9


@pytest.mark.parametrize("accumulate", [2, 4])
def test_accumulation_equals_one_batch_without_batch_norm(accumulate):
    plain = dataclasses.replace(EXPERIMENT, model=TinyNet(norm=False))
    state, history = run(plain)
    accumulated, other = run(dataclasses.replace(plain, accumulate=accumulate))
    close(state.params, accumulated.params, rtol=1e-4, atol=1e-6)
    close(history, other, rtol=1e-4)
    assert history[-1]["loss"] < history[0]["loss"]


def test_accumulation_threads_batch_statistics_through_the_microbatches_in_turn():
    accumulated, step = program(dataclasses.replace(EXPERIMENT, accumulate=2))
    whole = batch()
    after, _ = step(accumulated, whole)
    stats = accumulated.stats
    for microbatch in range(2):
        images = UNIT(whole["image"][microbatch::2])
        _, stats = EXPERIMENT.model.apply(
            {"params": accumulated.params, **stats}, images, train=True, mutable=["batch_stats"]
        )
    close(after.stats, stats, rtol=1e-5)
    assert not np.allclose(after.stats["batch_stats"]["bn1"]["mean"], 0)


def test_sums_start_anew_after_each_interval():
    _, every = run(EXPERIMENT, 6, log_every=1)
    _, thirds = run(EXPERIMENT, 6, log_every=3)
    for end in (3, 6):
        expected = sum(m["loss"] for m in every[end - 3 : end])
        assert thirds[end - 1]["loss"] == pytest.approx(expected, rel=1e-6)
        assert thirds[end - 1]["count"] == 48
    assert thirds[3]["count"] == 16


@pytest.mark.parametrize("warm", [True, False])
@pytest.mark.parametrize("statistics", ["average", "copy"])
def test_the_average_against_numpy(warm, statistics):
    ema = EMA(decay=0.6, warm=warm, statistics=statistics)
    experiment = dataclasses.replace(EXPERIMENT, ema=ema)
    state, step = program(experiment)
    expected = jax.device_get((state.params, state.stats))
    for number in range(5):
        state, _ = step(state, batch(start=16 * number))
        decay = min(0.6, (1 + number) / (10 + number)) if warm else 0.6
        new = jax.device_get((state.params, state.stats))
        expected = jax.tree.map(lambda old, new, d=decay: d * old + (1 - d) * new, expected, new)
    close(state.average.params, expected[0], rtol=1e-5, atol=1e-7)
    close(state.average.stats, state.stats if statistics == "copy" else expected[1], rtol=1e-5, atol=1e-7)
    assert int(state.average.count) == 5


def test_the_plateau_scale_multiplies_the_update_and_the_reported_rate():
    experiment = dataclasses.replace(EXPERIMENT, schedule=Plateau())
    state, step = program(experiment)
    full, metrics = step(state, batch())
    less, reduced = step(state.replace(plateau=state.plateau._replace(scale=jnp.float32(0.25))), batch())
    assert reduced["learning_rate"] == pytest.approx(0.25 * metrics["learning_rate"])
    close(
        jax.tree.map(lambda new, old: new - old, less.params, state.params),
        jax.tree.map(lambda new, old: 0.25 * (new - old), full.params, state.params),
        rtol=1e-3,
        atol=1e-7,
    )


def test_the_first_step_that_is_not_finite_is_kept():
    state, step = program(EXPERIMENT)
    state, metrics = step(state, batch())
    assert int(metrics["bad_step"]) == 0
    poisoned = state.replace(params=jax.tree.map(lambda x: x * jnp.nan, state.params))
    poisoned, metrics = step(poisoned, batch())
    assert int(metrics["bad_step"]) == 2
    _, metrics = step(poisoned, batch())
    assert int(metrics["bad_step"]) == 2


@pytest.mark.parametrize("skip", [0, 1])
def test_a_skipped_step_leaves_everything_but_its_number(skip):
    experiment = dataclasses.replace(EXPERIMENT, ema=EMA(decay=0.9))
    optimizer = build_optimizer(experiment.optimizer, lambda step: jnp.float32(0.1), None)
    plain = make_loss(experiment.task, experiment.model, UNIT)

    def poisoned(params, stats, frozen, batch, key):
        loss, aux = plain(params, stats, frozen, batch, key)
        return loss * jnp.where(batch["label"][0] == 3, jnp.nan, 1.0), aux

    step = make_train_step(poisoned, optimizer, lambda step: jnp.float32(0.1), ema=experiment.ema, skip=skip)
    step = jax.jit(functools.partial(unfrozen, step))
    good, bad = batch(), batch()
    good["label"], bad["label"] = good["label"].at[0].set(0), bad["label"].at[0].set(3)
    before, _ = step(initial_state(experiment, optimizer), good)
    after, metrics = step(before, bad)
    assert int(after.step) == 2 and int(after.not_finite) == 1 and np.isnan(metrics["step_loss"])
    assert int(metrics["bad_step"]) == (0 if skip else 2)
    if skip:
        unchanged = lambda state: (state.params, state.stats, state.opt_state, state.average)  # noqa: E731
        close(unchanged(after), unchanged(before), rtol=0)
        assert int(metrics["count"]) == 0
        recovered, metrics = step(after, good)
        assert int(recovered.not_finite) == 0 and int(metrics["bad_step"]) == 0 and int(metrics["count"]) == 16
        assert int(step(after, bad)[1]["bad_step"]) == 3  # two in a row


def test_dropout_draws_anew_each_step_and_the_same_again():
    experiment = dataclasses.replace(EXPERIMENT, model=TinyNet(dropout=0.5))
    state, step = program(experiment)
    _, first = step(state, batch())
    _, again = step(state, batch())
    _, later = step(state.replace(step=state.step + 1), batch())
    assert first["loss"] == again["loss"] != later["loss"]


def test_sums_against_numpy_with_a_mask_ties_and_six_classes():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(50, 6)).astype(np.float32).round(1)  # rounded, so that there are ties
    labels = rng.integers(0, 6, 50)
    mask = rng.random(50) < 0.7
    losses = np.asarray(CrossEntropy()(jnp.asarray(logits), jnp.asarray(labels)))
    expected = -(logits[np.arange(50), labels] - np.log(np.exp(logits).sum(1)))
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    order = np.argsort(-logits, axis=1, kind="stable")  # of equal logits, the lower index first
    ranks = np.array([list(row).index(label) for row, label in zip(order, labels, strict=True)])
    sums = classification_sums(*map(jnp.asarray, (logits, labels, np.where(mask, losses, np.nan), mask)))
    assert int(sums["accuracy"]) == ((ranks < 1) & mask).sum()
    assert int(sums["top5"]) == ((ranks < 5) & mask).sum() < mask.sum()
    assert int(sums["count"]) == mask.sum()
    assert float(sums["loss"]) == pytest.approx(expected[mask].sum(), rel=1e-5)


def test_equal_logits_do_not_count_as_right():
    sums = classification_sums(jnp.zeros((10, 10)), jnp.arange(10), jnp.zeros(10), jnp.ones(10, bool))
    assert int(sums["accuracy"]) == 1 and int(sums["top5"]) == 5


def test_label_smoothing_against_numpy():
    logits = np.random.default_rng(1).normal(size=(7, 5)).astype(np.float32)
    labels = np.arange(7) % 5
    targets = np.eye(5)[labels] * 0.9 + 0.1 / 5
    expected = -(targets * (logits - np.log(np.exp(logits).sum(1, keepdims=True)))).sum(1)
    ours = CrossEntropy(label_smoothing=0.1)(jnp.asarray(logits), jnp.asarray(labels))
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_losses_are_float32_whatever_the_logits():
    assert CrossEntropy()(jnp.ones((2, 3), jnp.bfloat16), jnp.zeros(2, jnp.int32)).dtype == jnp.float32


def test_bfloat16_computes_in_bfloat16_and_keeps_loss_statistics_and_state_in_float32():
    shape = (32, 32, 3)
    source = Synthetic(image_shape=shape, classes=4)
    model = create_model("vgg11_bn", width=0.125, stages=2, head=GAP(classes=4), dtype="bfloat16")
    experiment = Experiment(model=model, data=Data(shape, source=source), ema=EMA(decay=0.9))
    state, step = program(experiment)
    examples = [source.open("train")[i] for i in range(16)]
    images = {
        "image": jnp.stack([example["image"] for example in examples]),
        "label": jnp.array([example["label"] for example in examples]),
    }
    loss = make_loss(Classification(), model, UNIT)
    forward = str(jax.make_jaxpr(loss)(state.params, state.stats, {}, images, state.key))
    assert re.search(r"bf16\[[^]]*\] = conv_general_dilated", forward)
    assert re.search(r"f32\[[^]]*\] = reduce_sum", forward)
    assert not re.search(r"bf16\[[^]]*\] = (reduce_sum|log|exp)\b", forward)  # no softmax, mean or statistic
    losses = []
    for _ in range(12):
        state, metrics = step(state, images)
        losses.append(float(metrics["loss"]))
        assert metrics["loss"].dtype == jnp.float32
    floats = [x.dtype for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)]
    assert set(floats) == {jnp.dtype("float32")}
    assert losses[-1] < 0.5 * losses[0]


def test_the_evaluation_step_ignores_rows_that_are_not_valid():
    state, _ = program(EXPERIMENT)
    evaluation = make_evaluation_step(Classification(), EXPERIMENT.model, UNIT)
    step = jax.jit(lambda params, stats, batch: evaluation(params, stats, {}, batch)[0])
    full = batch(8) | {"valid": jnp.arange(8) < 5}
    garbage = full | {"image": full["image"].at[5:].set(255), "label": full["label"].at[5:].set(3)}
    close(step(state.params, state.stats, full), step(state.params, state.stats, garbage), rtol=0)
    assert int(step(state.params, state.stats, full)["count"]) == 5


@pytest.mark.parametrize(
    "make", [lambda: EMA(decay=1.0), lambda: CrossEntropy(label_smoothing=1.0), lambda: Data((0, 1, 1))]
)
def test_values_out_of_range_are_refused(make):
    with pytest.raises(UserError):
        make()


def test_the_logged_rate_is_the_applied_one_after_skipped_steps():
    """Steps 3 and 4 of 8 are skipped; the schedule goes by the step, the average and Adam's correction by updates."""

    def loss_fn(params, stats, frozen, batch, key):
        value = jnp.where(batch["bad"], jnp.nan, params["w"])  # its gradient is 1
        return value, (stats, {"loss": value, "count": jnp.int32(1)})

    rate = lambda step: 0.5 ** (step + 1).astype(jnp.float32)  # noqa: E731
    optimizer = build_optimizer(SGD(1.0, momentum=0.0), rate, None)
    step = jax.jit(functools.partial(unfrozen, make_train_step(loss_fn, optimizer, rate, skip=3, ema=EMA(decay=0.9))))
    sums = {"loss": jnp.float32(0), "count": jnp.int32(0)}
    state = create_state({"params": {"w": jnp.float32(4)}}, optimizer, True, None, sums, jax.random.key(0))
    for number in range(8):
        before = float(state.params["w"])
        bad = number in (2, 3)
        state, metrics = step(state, {"bad": jnp.bool_(bad)})
        assert float(metrics["learning_rate"]) == 0.5 ** (number + 1)
        assert before - float(state.params["w"]) == (0 if bad else float(metrics["learning_rate"]))
    assert int(state.average.count) == 6 and int(state.bad_step) == 0


def test_frozen_variables_take_part_and_are_not_in_the_state():
    """A trunk whose kernel and statistics are frozen, and a teacher: the same loss as the whole net's, no gradient."""
    state, _ = program(EXPERIMENT)
    whole = {"params": state.params, **state.stats}
    name = next(iter(state.params))
    frozen = {"params": {name: state.params[name]}, "batch_stats": state.stats["batch_stats"], "teacher": {"w": 1.0}}
    params = {key: value for key, value in state.params.items() if key != name}
    loss = make_loss(EXPERIMENT.task, EXPERIMENT.model, UNIT)
    of_all, (_, sums) = loss(whole["params"], state.stats, {}, batch(), state.key)
    (of_some, (stats, same)), grads = jax.value_and_grad(loss, has_aux=True)(params, {}, frozen, batch(), state.key)
    assert float(of_all) == float(of_some) and stats == {} and float(sums["loss"]) == float(same["loss"])
    assert grads.keys() == params.keys()
    optimizer = build_optimizer(EXPERIMENT.optimizer, lambda step: jnp.float32(0.1), None)
    part = create_state({"params": params}, optimizer, False, None, jax.tree.map(jnp.zeros_like, sums), state.key)
    step = jax.jit(make_train_step(loss, optimizer, lambda step: jnp.float32(0.1)), donate_argnums=0)
    losses = []
    for _ in range(8):
        part, metrics = step(part, frozen, batch())
        losses.append(float(metrics["step_loss"]))
    assert losses[-1] < losses[0] and name not in part.params  # and frozen, which is not donated, is still there
