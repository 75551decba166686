"""Inception-v3 against torchvision's, with random weights."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.errors import UserError
from jaxcnn.models import create_model
from jaxcnn.models.pretrained import from_torch, leaves
from tests.models.parity import (
    PARITY_SIZES,
    check_evaluation,
    check_training,
    close,
    photo,
    randomize,
    to_torch,
    torch,
    torchvision,
)
from tests.slow import slow


def theirs(aux):
    return randomize(torchvision().inception_v3(weights=None, init_weights=False, aux_logits=aux))


def last_map(net, images):
    """torchvision's map before the average pooling."""
    seen = []
    hook = net.avgpool.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    net(images)
    hook.remove()
    return seen[0]


def test_count_with_the_auxiliary_head():
    sizes = leaves(create_model("inception_v3"), (299, 299, 3))
    assert sum(math.prod(shape) for path, shape in sizes.items() if path.startswith("params")) == 27161264


def test_smallest_input_is_75_with_the_auxiliary_head_too():
    model = create_model("inception_v3", width=0.125)
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(0)}

    def shapes(*size):
        images = jax.ShapeDtypeStruct((2, *size, 3), jnp.float32)
        return jax.eval_shape(lambda x: model.init_with_output(keys, x, train=True, method="outputs")[0], images)

    outputs = shapes(75, 91)
    assert outputs.logits.shape == outputs.aux["Mixed_6e"].shape == (2, 1000)
    with pytest.raises(UserError, match="needs 75x75"):
        shapes(91, 74)


def test_evaluation_equals_torchvisions():
    check_evaluation("inception_v3", theirs(aux=True), PARITY_SIZES, features=last_map)


def test_auxiliary_head_equals_torchvisions():
    """In training mode on a map of 17x17, with the gradient of its input."""
    net = theirs(aux=True)
    variables = from_torch("inception_v3", net.state_dict())
    head = create_model("inception_v3").aux["Mixed_6e"]
    own = {kind: tree["aux_Mixed_6e"] for kind, tree in variables.items()}
    maps = photo((17, 17, 768), batch=3)
    x = to_torch(maps).requires_grad_()
    logits = net.train().AuxLogits(x)
    weights = photo((1, 1, 1000), batch=3)[:, 0, 0]
    (logits * torch.from_numpy(weights)).sum().backward()

    def total(maps):
        out, _ = head.apply(own, maps, train=True, mutable=["batch_stats"])
        return (out * weights).sum(), out

    (_, out), gradient = jax.value_and_grad(total, has_aux=True)(jnp.asarray(maps))
    close(out, logits.detach().numpy(), 1e-4)
    expected = x.grad.numpy().transpose(0, 2, 3, 1)
    close(gradient / np.abs(expected).max(), expected / np.abs(expected).max(), 1e-4)


@slow
def test_training_equals_torchvisions():
    check_training("inception_v3", theirs(aux=False), (107, 123), aux={}, dropout=0.0)


@slow
def test_training_with_the_auxiliary_head_equals_torchvisions():
    """At 299, the smallest size at which torchvision's auxiliary head works."""
    net = theirs(aux=True)
    check_training(
        "inception_v3", net, (299, 299), outputs=lambda out: (out.logits, {"Mixed_6e": out.aux_logits}), dropout=0.0
    )
