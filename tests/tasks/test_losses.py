"""Losses beside PyTorch's and torchvision's, values and gradients, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxcnn as jc
from jaxcnn.errors import UserError

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(scale=4, size=(9, 7)).astype(np.float32)
LABELS = RNG.integers(0, 7, 9).astype(np.int32)


def compare(loss, reference):
    """Losses of each example, and the gradient of their mean."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed (pip install -e '.[parity]'): not run")
    logits = torch.tensor(LOGITS.astype(np.float64), requires_grad=True)
    expected = reference(torch, logits, torch.from_numpy(LABELS.astype(np.int64)))
    expected.mean().backward()
    found = loss(jnp.asarray(LOGITS), jnp.asarray(LABELS))
    assert found.shape == LABELS.shape and found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected.detach().numpy(), rtol=2e-5, atol=1e-6)
    gradient = jax.grad(lambda x: loss(x, LABELS).mean())(jnp.asarray(LOGITS))
    np.testing.assert_allclose(gradient, logits.grad.numpy(), rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("whole", [False, True])
def test_binary_cross_entropy_is_torchs(smoothing, whole):
    def reference(torch, logits, labels):
        targets = torch.nn.functional.one_hot(labels, 7) * (1 - smoothing) + smoothing / 7
        losses = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        return losses.sum(-1) if whole else losses.mean(-1)

    compare(jc.BinaryCrossEntropy(smoothing, whole), reference)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0, 3.5])
def test_focal_loss_is_the_papers(gamma):
    def reference(torch, logits, labels):
        loss = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        return (1 - torch.exp(-loss)) ** gamma * loss

    compare(jc.FocalLoss(gamma), reference)


def test_a_sure_answer_has_a_finite_gradient():
    logits = jnp.array([[200.0, -200.0], [-200.0, 200.0]])
    for loss in (jc.FocalLoss(), jc.FocalLoss(0.0), jc.BinaryCrossEntropy(), jc.CrossEntropy()):
        value, gradient = jax.value_and_grad(lambda x, loss=loss: loss(x, jnp.array([0, 0])).sum())(logits)
        assert np.isfinite(value) and np.isfinite(gradient).all() and value > 100


def test_the_binary_loss_is_linear_in_the_target():
    """So that a mixed image's two losses in their shares are the loss of a label in parts."""
    share, other = 0.3, (LABELS + 2) % 7
    targets = share * jax.nn.one_hot(LABELS, 7) + (1 - share) * jax.nn.one_hot(other, 7)
    expected = optax.sigmoid_binary_cross_entropy(jnp.asarray(LOGITS), targets).mean(-1)
    loss = jc.BinaryCrossEntropy()
    mixed = share * loss(jnp.asarray(LOGITS), LABELS) + (1 - share) * loss(jnp.asarray(LOGITS), other)
    np.testing.assert_allclose(mixed, expected, rtol=1e-5)


@pytest.mark.parametrize(
    "make, told",
    [
        (lambda: jc.BinaryCrossEntropy(label_smoothing=1.0), "label_smoothing is 1.0; it must be at least 0 and below"),
        (lambda: jc.FocalLoss(gamma=-1.0), "gamma is -1.0; it must be 0, which is the cross-entropy, or at"),
    ],
)
def test_wrong_fields_are_one_sentence(make, told):
    with pytest.raises(UserError) as error:
        make()
    assert told in str(error.value)
