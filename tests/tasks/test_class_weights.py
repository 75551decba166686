"""Class weights of a classifier: PyTorch's weighted mean; on several devices and in microbatches: many_devices.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn as jc
from jaxcnn import UserError
from tests.compilation import quick
from tests.nets import TinyNet
from tests.torchvision_ops import torch

WEIGHTS = (0.5, 3.0, 0.0, 1.0)
IMAGES = np.random.default_rng(0).normal(size=(12, 9, 9, 3)).astype(np.float32)
LABELS = np.arange(12) % 3
NET = TinyNet(norm=False)
VARIABLES = jax.eval_shape(lambda: NET.init(jax.random.key(0), IMAGES, train=False))
VARIABLES = jax.tree.map(lambda x: np.random.default_rng(1).normal(size=x.shape).astype(np.float32), VARIABLES)


def test_loss_and_gradient_are_pytorchs():
    pytest.importorskip("torch")
    task = jc.Classification(class_weights=WEIGHTS)
    batch = {"image": IMAGES, "label": jnp.asarray(LABELS)}

    def loss(variables):
        total, _, sums = task.loss(NET, variables, batch, train=True, rngs={})
        return total, sums

    (total, sums), gradient = quick(jax.value_and_grad(loss, has_aux=True))(VARIABLES)
    logits = torch.tensor(np.asarray(NET.apply(VARIABLES, IMAGES, train=False)), requires_grad=True)
    theirs = torch.nn.CrossEntropyLoss(weight=torch.tensor(WEIGHTS))(logits, torch.from_numpy(LABELS))
    theirs.backward()
    assert float(total) == pytest.approx(theirs.item(), rel=1e-5)
    np.testing.assert_allclose(gradient["params"]["fc1"]["bias"], logits.grad.sum(0).numpy(), atol=1e-6)
    assert float(task.normalizer(NET, batch)) == sum(WEIGHTS[label] for label in LABELS) == 14
    assert task.metrics(jax.device_get(sums), {})["loss"] == pytest.approx(theirs.item(), rel=1e-5)
    assert set(task.metrics(jax.device_get(sums), {})) == {"loss", "accuracy", "count"}


def test_evaluation_has_no_weights_and_a_batch_without_weight_no_loss():
    batch = {"image": IMAGES, "label": jnp.full(12, 2), "valid": np.ones(12, bool)}
    weighted = jc.Classification(class_weights=WEIGHTS)

    @quick
    def both(variables):
        evaluated = [task.outputs(NET, variables, batch)[0] for task in (weighted, jc.Classification())]
        return evaluated, weighted.loss(NET, variables, batch, train=True, rngs={})

    (found, plain), (total, _, sums) = both(VARIABLES)
    assert found == plain
    assert total == 0 and np.isnan(weighted.metrics(jax.device_get(sums), {})["loss"])


def test_wrong_weights_are_one_sentence():
    for weights, message in (((1.0, -1.0), "has the weight -1.0"), ((0.0, 0.0), "one at least must be above 0")):
        with pytest.raises(UserError, match=f"task.class_weights .*{message}"):
            jc.Classification(class_weights=weights)
    examples = jc.Synthetic(classes=4).open("train")
    with pytest.raises(UserError, match=r"task.class_weights has 2 entries, but synthetic/train has 4 classes"):
        jc.Classification(class_weights=(1.0, 2.0)).check(NET, examples)
