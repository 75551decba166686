"""Squeeze-and-excitation nets against timm's ports of the authors' nets."""

import jax
import jax.numpy as jnp
import pytest

from jaxcnn.errors import UserError
from jaxcnn.models import create_model
from jaxcnn.models.pretrained import from_torch
from tests.models.parity import PARITY_SIZES, check_evaluation, check_training, randomize, timm, torch
from tests.slow import slow

NAMES = ["se_resnet50", "se_resnet101", "se_resnet152", "senet154"]


def reference(name):
    """timm's "legacy" net of random weights, without the dropout that timm puts before every head.

    The residuals are made smaller: else they grow from block to block until the gates amplify rounding errors, and
    PyTorch's own float32 logits of se_resnet50 are 3e-4 from its float64 ones (with this 6e-7).
    """
    net = timm().create_model("legacy_" + name.replace("_", ""), pretrained=False, drop_rate=0.0)
    return small_residuals(randomize(net))


def small_residuals(net):
    for name, parameter in net.named_parameters():
        if name.startswith(("layer1", "layer2", "layer3", "layer4")) and name.endswith("bn3.weight"):
            parameter.data *= 0.25
    return net


def shallow(name):
    """The first two stages, of two blocks and one: every kind of block."""
    layers = (2, 1, 1, 1)
    net = timm().create_model("legacy_" + name.replace("_", ""), pretrained=False, drop_rate=0.0, layers=layers)
    net.last_linear = torch.nn.Linear(net.layer3[0].conv1.in_channels, 10)
    net.layer3 = net.layer4 = torch.nn.Identity()
    return small_residuals(randomize(net)), {"depth": (2, 1), "classes": 10}


def last_map(net, x):
    return net.forward_features(x)


@pytest.mark.parametrize("name", [name if name == "se_resnet50" else pytest.param(name, marks=slow) for name in NAMES])
def test_equals_timms(name):
    check_evaluation(name, reference(name), PARITY_SIZES, features=last_map)


@pytest.mark.parametrize("name", [pytest.param(name, marks=slow) for name in NAMES])
def test_trains_as_timms(name):
    check_training(name, reference(name), (97, 113), dropout=0.0)


@pytest.mark.parametrize("name", ["se_resnet50", "senet154"])
def test_first_stages_equal_timms(name):
    net, fields = shallow(name)
    check_evaluation(name, net, [(193, 225)], features=last_map, **fields)
    check_training(name, net, (33, 49), dropout=0.0, compiled=True, **fields)


def test_smallest_input():
    model = create_model("se_resnet50")
    for size in (5, 4):
        images = jnp.zeros((1, size, 9, 3))
        init = lambda images=images: model.init(jax.random.key(0), images, train=False)  # noqa: E731
        if size == 5:
            jax.eval_shape(init)
        else:
            with pytest.raises(UserError, match="needs 5x5"):
                jax.eval_shape(init)


def test_timms_nets_of_todays_names_are_other_nets_and_the_message_says_so():
    with torch.device("meta"):
        given = timm().create_model("seresnet50", pretrained=False).state_dict()
    with pytest.raises(UserError, match=r"legacy_seresnet50, legacy_senet154") as error:
        from_torch("se_resnet50", given)
    assert "timm's seresnet50 and senet154, without legacy_, are other nets" in str(error.value)
