"""Twenty steps of each optimizer against a few lines of numpy, on a problem whose loss must fall."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcnn.errors import UserError
from jaxcnn.train.optimizers import LAMB, LARS, SGD, Adam, RMSProp, at_step, build_optimizer, decay_mask

A = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
B = np.random.default_rng(1).normal(size=(6,)).astype(np.float32)
KINDS = (SGD, Adam, RMSProp, LARS, LAMB)
NAN, INF = float("nan"), float("inf")
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
            named = {"name": name} if "name" in inspect.signature(update).parameters else {}
            params[name] = params[name] + update(slots[name], gradient, rate, params[name], step, **named)
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


@pytest.mark.parametrize("decay, touched", [("kernels", ("kernel",)), ("all", ("kernel", "bias"))])
def test_lars_is_algorithm_1_of_the_paper(decay, touched):
    """The decay is large, so that a norm of the sum (optax's form) in place of the sum of norms would be seen."""

    def update(slot, gradient, rate, weight, step, name):
        if name in touched:
            norms = np.linalg.norm(gradient), np.linalg.norm(weight)
            gradient = 0.5 * norms[1] / (norms[0] + 0.3 * norms[1]) * (gradient + 0.3 * weight)
        slot["v"] = 0.9 * slot.get("v", 0) + rate * gradient
        return -slot["v"]

    check(LARS(momentum=0.9, trust_coefficient=0.5, weight_decay=0.3, decay=decay), update, decayed=())


@pytest.mark.parametrize("decay, touched", [("kernels", ("kernel",)), ("all", ("kernel", "bias"))])
def test_lamb_is_algorithm_2_of_the_paper(decay, touched):
    check(LAMB(weight_decay=0.01, decay=decay), functools.partial(lamb, touched), decayed=())


def lamb(touched, slot, gradient, rate, weight, step, name):
    slot["m"] = 0.9 * slot.get("m", 0) + 0.1 * gradient
    slot["v"] = 0.999 * slot.get("v", 0) + 0.001 * gradient**2
    m, v = slot["m"] / (1 - 0.9 ** (step + 1)), slot["v"] / (1 - 0.999 ** (step + 1))
    direction = m / (np.sqrt(v) + 1e-6)
    if name in touched:
        direction = direction + 0.01 * weight
        direction = direction * np.linalg.norm(weight) / np.linalg.norm(direction)
    return -rate * direction


@pytest.mark.parametrize(
    "made", [LAMB(weight_decay=0.01), RMSProp(momentum=0.9, weight_decay=0.01)], ids=["LAMB", "RMSProp"]
)
def test_lamb_and_tensorflows_rmsprop_are_timms(made):
    """timm's own two parameter groups: no decay, and then no ratio, for biases. The rate changes from step to step."""
    from tests.models.parity import timm, torch

    timm()
    from timm.optim import Lamb, RMSpropTF

    params = {name: torch.nn.Parameter(torch.tensor(value)) for name, value in START.items()}
    groups = [{"params": [params["kernel"]], "weight_decay": 0.01}, {"params": [params["bias"]], "weight_decay": 0.0}]
    if isinstance(made, LAMB):
        optimizer = Lamb(groups, lr=1.0, max_grad_norm=None)
    else:
        optimizer = RMSpropTF(groups, lr=1.0, alpha=0.9, eps=1e-3, momentum=0.9)
    for rate in RATES:
        for group in optimizer.param_groups:
            group["lr"] = float(rate)
        gradients = jax.grad(loss)({name: p.detach().numpy() for name, p in params.items()})
        for name, p in params.items():
            p.grad = torch.tensor(np.asarray(gradients[name]))
        optimizer.step()
    moved, _ = ours(made)
    for name, p in params.items():
        np.testing.assert_allclose(moved[name], p.detach().numpy(), rtol=2e-5, atol=1e-6)


def test_a_layer_of_zeros_still_moves():
    """Its trust ratio would be 0 for ever."""
    params, gradients = {"kernel": jnp.zeros(3)}, {"kernel": jnp.ones(3)}
    for optimizer in (LARS(), LAMB()):
        built = build_optimizer(optimizer, lambda step: 0.1, None)
        updates, _ = built.update(gradients, built.init(params), params)
        np.testing.assert_allclose(updates["kernel"], -0.1, rtol=1e-5)


@pytest.mark.parametrize("optimizer", [SGD(), Adam(), RMSProp(), LARS(), LAMB()])
@pytest.mark.parametrize("clip", [None, 1.0])
def test_the_rate_is_that_of_the_runs_step_and_not_of_the_updates_so_far(optimizer, clip):
    """The first update made at step 7 is the one that a constant rate of step 7 makes."""
    updates = []
    for rate, step in ((lambda step: jnp.asarray(RATES)[step], 7), (lambda step: jnp.float32(RATES[7]), 0)):
        built = build_optimizer(optimizer, rate, clip)
        state = at_step(built.init(START), jnp.int32(step))
        updates.append(built.update(jax.grad(loss)(START), state, START)[0])
    jax.tree.map(np.testing.assert_array_equal, *updates)
    assert np.abs(updates[0]["kernel"]).max() > 0


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
        *(
            (kind(learning_rate=rate), None, r"optimizer\.learning_rate")
            for kind in KINDS
            for rate in (0, -1, NAN, 1e39)
        ),
        *((kind(weight_decay=decay), None, r"optimizer\.weight_decay") for kind in KINDS for decay in (-1, NAN, INF)),
        (SGD(momentum=1.0), None, r"optimizer\.momentum"),
        (SGD(momentum=-0.1), None, r"optimizer\.momentum"),
        (Adam(b2=1.0), None, r"optimizer\.b2"),
        (LAMB(b1=NAN), None, r"optimizer\.b1"),
        (RMSProp(rho=2.0), None, r"optimizer\.rho"),
        (RMSProp(epsilon=-1.0), None, r"optimizer\.epsilon"),
        (LARS(trust_coefficient=0.0), None, r"optimizer\.trust_coefficient"),
        *((SGD(), clip, "clip_norm") for clip in (0.0, -1.0, NAN, INF)),
    ],
)
def test_wrong_values_are_named(optimizer, clip, word):
    with pytest.raises(UserError, match=word):
        build_optimizer(optimizer, lambda step: 0.1, clip)
