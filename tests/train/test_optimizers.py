"""Twenty steps of each optimizer against a few lines of numpy, on a problem whose loss must fall."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcnn.errors import UserError
from jaxcnn.train.optimizers import LAMB, LARS, SGD, Adam, RMSProp, build_optimizer, decay_mask

A = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
B = np.random.default_rng(1).normal(size=(6,)).astype(np.float32)
START = {"kernel": np.full(4, 2.0, np.float32), "bias": np.float32(1.5)}
RATES = np.linspace(0.05, 0.01, 20, dtype=np.float32)


def loss(params):
    return jnp.mean((A @ params["kernel"] + params["bias"] - B) ** 2)


def ours(optimizer, clip=None):
    built = build_optimizer(optimizer, lambda step: jnp.asarray(RATES)[step], clip)
    params = jax.tree.map(jnp.asarray, START)
    state = built.init(params)
    losses = [float(loss(params))]
    for _ in RATES:
        updates, state = built.update(jax.grad(loss)(params), state, params)
        params = optax.apply_updates(params, updates)
        losses.append(float(loss(params)))
    return params, losses


def reference(update, decayed=("kernel",), wd=0.0):
    """Runs `update(slot, gradient, rate, weight)` -> change per parameter; coupled decay is added to the gradient."""
    params = {name: np.array(value) for name, value in START.items()}
    slots = {name: {} for name in params}
    for step, rate in enumerate(RATES):
        gradients = jax.grad(loss)(params)
        for name in params:
            gradient = np.asarray(gradients[name]) + (wd * params[name] if name in decayed else 0)
            params[name] = params[name] + update(slots[name], gradient, rate, params[name], step)
    return params


def check(optimizer, update, **keywords):
    params, losses = ours(optimizer)
    expected = reference(update, **keywords)
    for name in params:
        np.testing.assert_allclose(params[name], expected[name], rtol=2e-5, atol=1e-6)
    assert losses[-1] < 0.7 * losses[0]


def test_sgd_with_momentum_and_coupled_decay_is_the_textbook_form():
    def update(slot, gradient, rate, weight, step):
        slot["v"] = 0.9 * slot.get("v", 0) + gradient
        return -rate * slot["v"]

    check(SGD(momentum=0.9, weight_decay=0.01), update, wd=0.01)
    check(SGD(momentum=0.9, weight_decay=0.01, decay="all"), update, wd=0.01, decayed=("kernel", "bias"))


def test_sgd_nesterov():
    def update(slot, gradient, rate, weight, step):
        slot["v"] = 0.9 * slot.get("v", 0) + gradient
        return -rate * (gradient + 0.9 * slot["v"])

    check(SGD(momentum=0.9, nesterov=True), update)


def test_adamw_decay_is_decoupled():
    def update(slot, gradient, rate, weight, step):
        slot["m"] = 0.9 * slot.get("m", 0) + 0.1 * gradient
        slot["v"] = 0.999 * slot.get("v", 0) + 0.001 * gradient**2
        m, v = slot["m"] / (1 - 0.9 ** (step + 1)), slot["v"] / (1 - 0.999 ** (step + 1))
        decay = 0.1 * weight if np.ndim(weight) else 0
        return -rate * (m / (np.sqrt(v) + 1e-8) + decay)

    check(Adam(weight_decay=0.1), update)


@pytest.mark.parametrize("form", ["tensorflow", "torch"])
def test_rmsprop_in_both_forms(form):
    def update(slot, gradient, rate, weight, step):
        slot["s"] = 0.9 * slot.get("s", 1.0 if form == "tensorflow" else 0.0) + 0.1 * gradient**2
        root = np.sqrt(slot["s"] + 1e-3) if form == "tensorflow" else np.sqrt(slot["s"]) + 1e-3
        slot["m"] = 0.5 * slot.get("m", 0) + rate * gradient / root
        return -slot["m"]

    check(RMSProp(momentum=0.5, form=form), update)


def test_lars_scales_kernels_by_the_trust_ratio():
    def update(slot, gradient, rate, weight, step):
        if np.ndim(weight):
            gradient = gradient * 0.5 * np.linalg.norm(weight) / np.linalg.norm(gradient)
        slot["v"] = 0.9 * slot.get("v", 0) + rate * gradient
        return -slot["v"]

    check(LARS(momentum=0.9, trust_coefficient=0.5, weight_decay=0.01), update, wd=0.01)


def test_lamb_scales_adam_by_the_trust_ratio():
    def update(slot, gradient, rate, weight, step):
        slot["m"] = 0.9 * slot.get("m", 0) + 0.1 * gradient
        slot["v"] = 0.999 * slot.get("v", 0) + 0.001 * gradient**2
        m, v = slot["m"] / (1 - 0.9 ** (step + 1)), slot["v"] / (1 - 0.999 ** (step + 1))
        direction = m / (np.sqrt(v) + 1e-6) + (0.01 * weight if np.ndim(weight) else 0)
        return -rate * direction * np.linalg.norm(weight) / np.linalg.norm(direction)

    check(LAMB(weight_decay=0.01), update)


def test_clipping_bounds_the_global_norm_of_the_gradient():
    params, losses = ours(SGD(momentum=0.0), clip=0.1)
    moved = np.sqrt(sum(np.sum((np.asarray(params[n]) - START[n]) ** 2) for n in params))
    assert 0 < moved <= 0.1 * RATES.sum() + 1e-6
    assert losses[-1] < losses[0]


def test_the_decay_mask_goes_by_role():
    params = {"conv1": {"kernel": 0, "bias": 0}, "bn1": {"scale": 0, "bias": 0}}
    kernels = {"conv1": {"kernel": True, "bias": False}, "bn1": {"scale": False, "bias": False}}
    assert decay_mask(params, "kernels") == kernels
    assert all(jax.tree.leaves(decay_mask(params, "all")))


@pytest.mark.parametrize(
    "optimizer, clip, word",
    [
        (SGD(learning_rate=0), None, "learning_rate"),
        (Adam(weight_decay=-1), None, "weight_decay"),
        (SGD(), 0.0, "clip"),
    ],
)
def test_wrong_values_are_named(optimizer, clip, word):
    with pytest.raises(UserError, match=word):
        build_optimizer(optimizer, lambda step: 0.1, clip)
