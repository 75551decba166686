"""SAM against a step by hand and against optax.contrib.sam: clipping, groups, microbatches, batch statistics."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcnn import config
from jaxcnn.data.transforms import UNIT
from jaxcnn.errors import UserError
from jaxcnn.runs.debug import debug
from jaxcnn.runs.initial_state import initial_state, optimizer_of
from jaxcnn.runs.program import train_step
from jaxcnn.tasks.objective import make_loss
from jaxcnn.train.groups import Group
from jaxcnn.train.optimizers import SAM, SGD, Adam, with_learning_rate
from tests.compilation import quick
from tests.nets import TinyNet
from tests.runs.test_seeds import make

RATE, RHO = 0.1, 0.3


def batch():
    examples = make(0).data.source.open("train")
    rows = [examples[i] for i in range(16)]
    labels = jnp.array([row["label"] for row in rows], jnp.int32)
    return {"image": jnp.stack([row["image"] for row in rows]), "label": labels}


def stepped(made, count):
    """(the first state, the last, the last metrics)."""
    rate = lambda step: jnp.float32(RATE)  # noqa: E731
    optimizer = optimizer_of(made, rate)
    first = state = initial_state(made, optimizer)
    step = quick(train_step(made, optimizer, rate, log_every=1))
    for _ in range(count):
        state, measured = step(state, {}, batch())
    return first, state, jax.device_get(measured)


def norm(tree):
    return np.sqrt(sum(float((np.asarray(x, np.float64) ** 2).sum()) for x in jax.tree.leaves(tree)))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_is_that_by_hand_with_clipping_groups_and_decay(accumulate):
    """bn1 is frozen, so that it is no part of the norm, and not moved to look around; conv1's rate is doubled."""
    groups = (Group("params/bn1/*", freeze=True), Group("params/conv1/*", rate=2.0))
    made = make(0, optimizer=SAM(SGD(RATE, momentum=0.9, weight_decay=0.1), RHO), groups=groups)
    made = dataclasses.replace(made, clip_norm=0.05, accumulate=accumulate)
    first, last, measured = stepped(made, 2)
    loss = make_loss(made.task, made.model, UNIT)

    @jax.jit
    def gradients(params, stats, fixed):
        """Of the whole batch, its parts one after the other; and the statistics after them."""
        found = []
        for part in range(accumulate):
            own = {name: value[part::accumulate] for name, value in batch().items()}
            inner = lambda p, stats=stats, own=own: loss({**p, **fixed}, stats, {}, own, jax.random.key(0))  # noqa: E731
            (value, (stats, _)), grads = jax.value_and_grad(inner, has_aux=True)(params)
            found.append((grads, value))
        return jax.tree.map(lambda *each: sum(each) / accumulate, *found), stats

    params, stats = jax.device_get((dict(first.params), first.stats))
    fixed, velocity = {"bn1": params.pop("bn1")}, None
    for _ in range(2):
        (g, value), after = gradients(params, stats, fixed)
        far = RHO / norm(g)
        there = jax.tree.map(lambda w, g, far=far: w + far * g, params, g)
        (g, _), _ = gradients(there, stats, fixed)
        size, stats = norm(g), after
        g = jax.tree.map(lambda g, size=size: g * min(1, 0.05 / size), g)
        for name in ("conv1", "fc1"):
            g[name]["kernel"] = g[name]["kernel"] + 0.1 * params[name]["kernel"]
        velocity = g if velocity is None else jax.tree.map(lambda v, g: 0.9 * v + g, velocity, g)
        rates = {"conv1": 2 * RATE, "fc1": RATE}
        params = {
            name: jax.tree.map(lambda w, v, r=rates[name]: w - r * v, part, velocity[name])
            for name, part in params.items()
        }
    close = functools.partial(np.testing.assert_allclose, rtol=2e-4, atol=1e-6)
    jax.tree.map(close, dict(last.params), {**params, **fixed})
    jax.tree.map(close, last.stats, jax.device_get(stats))
    close(measured["grad_norm"], size)
    close(measured["step_loss"], value)


def test_it_is_optaxs():
    made = make(0, model=TinyNet(norm=False), optimizer=SAM(SGD(RATE, momentum=0.9), RHO))
    first, last, _ = stepped(made, 3)
    loss = make_loss(made.task, made.model, UNIT)
    gradient = jax.jit(jax.grad(lambda params: loss(params, {}, {}, batch(), jax.random.key(0))[0]))
    adversary = optax.chain(optax.contrib.normalize(), optax.sgd(RHO))
    theirs = optax.contrib.sam(optax.sgd(RATE, 0.9), adversary, sync_period=2, opaque_mode=True, reset_state=False)
    params, state = first.params, theirs.init(first.params)
    for _ in range(3):
        updates, state = theirs.update(gradient(params), state, params, grad_fn=lambda params, _: gradient(params))
        params = optax.apply_updates(params, updates)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), last.params, params)


def test_a_gradient_of_0_looks_nowhere_and_one_that_is_not_finite_is_a_bad_step():
    made = make(0, optimizer=SAM(SGD(RATE)))
    made = dataclasses.replace(made, model=TinyNet(classes=1))
    _, state, measured = stepped(made, 1)
    assert measured["grad_norm"] == 0 and int(state.bad_step) == 0
    rate = lambda step: jnp.float32(RATE)  # noqa: E731
    made = make(0, optimizer=SAM(SGD(RATE)))
    optimizer = optimizer_of(made, rate)
    state = initial_state(made, optimizer)
    broken = jax.tree.map(lambda x: jnp.full_like(x, jnp.inf), state.params)
    after, _ = quick(train_step(made, optimizer, rate, log_every=1))(state.replace(params=broken), {}, batch())
    assert int(after.bad_step) == 1


def test_it_is_stored_shrinks_with_debug_and_refuses_what_cannot_be_meant():
    made = make(0, optimizer=SAM(Adam(1e-3), rho=0.1))
    assert config.decode(config.encode(made), trusted=True) == made
    assert config.encode(made)["optimizer"]["optimizer"]["class"] == "jaxcnn:Adam"
    assert with_learning_rate(made.optimizer, 0.5).learning_rate == 0.5
    small = debug(made).optimizer
    assert isinstance(small, SAM) and small.rho == 0.1 and 0 < small.learning_rate < 1e-3
    with pytest.raises(UserError, match="weight_decay is -1"):
        optimizer_of(make(0, optimizer=SAM(SGD(weight_decay=-1.0))), lambda step: 0.1)
    for message, wrong in (
        ("rho is 0", lambda: SAM(rho=0.0)),
        ("rho is nan", lambda: SAM(rho=float("nan"))),
        ("another SAM", lambda: SAM(SAM())),
    ):
        with pytest.raises(UserError, match=message):
            wrong()
    assert SAM(optax.sgd(0.1)).learning_rate == 1
