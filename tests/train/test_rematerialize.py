"""Rematerialisation: the same loss, gradients and statistics, with less kept for the backward pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.data.transforms import UNIT
from jaxcnn.models import GAP, create_model
from jaxcnn.tasks.classification import Classification
from jaxcnn.tasks.objective import make_loss
from jaxcnn.train.rematerialize import rematerialized

NETS = {
    "resnet20_cifar": {"depth": (6, 1, 1)},
    "vgg11_bn": {"variant": "D", "width": 0.25, "head": GAP(classes=4), "stages": 3},
}


def losses(name, batch):
    """The plain and the rematerialised loss, with arguments for them."""
    model = create_model(name, classes=4, **NETS[name])
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch, 32, 32, 3), np.uint8)
    variables = jax.jit(lambda: model.init(jax.random.key(0), UNIT(images[:1]), train=False, method="outputs"))()
    stats = {name: value for name, value in variables.items() if name != "params"}
    arguments = (variables["params"], stats, {}, {"image": images, "label": jnp.arange(batch) % 4}, jax.random.key(1))
    loss = make_loss(Classification(), model, UNIT)
    return (loss, rematerialized(loss)), arguments


def kept(loss, params, *others):
    """Bytes that the forward pass hands to the backward pass.

    What XLA makes of it is another matter: on CPUs its scheduler computes early what was to be computed late.
    """
    shapes = jax.eval_shape(lambda params: jax.vjp(lambda p: loss(p, *others)[0], params)[1], params)
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(shapes))


@pytest.mark.parametrize("name", NETS)
def test_the_same_values_in_less_memory_for_more_arithmetic(name):
    both, arguments = losses(name, batch=32)
    plain, lean = (jax.jit(jax.value_and_grad(loss, has_aux=True)).lower(*arguments).compile() for loss in both)
    (loss, aux), grads = plain(*arguments)
    (other, other_aux), other_grads = lean(*arguments)
    assert float(loss) == pytest.approx(float(other), rel=1e-5)
    scale = max(float(jnp.abs(g).max()) for g in jax.tree.leaves(grads))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4 * scale), grads, other_grads)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), aux, other_aux)

    more, less = (kept(loss, *arguments) for loss in both)
    assert less < 0.3 * more
    assert lean.cost_analysis()["flops"] > 1.1 * plain.cost_analysis()["flops"]
