"""Layer-wise decay of rates: layers in the order of the model, timm's factors, and an update by hand."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcnn.data.synthetic import Synthetic
from jaxcnn.errors import UserError
from jaxcnn.experiment import Data, Experiment
from jaxcnn.models import create_model
from jaxcnn.runs.initial_state import optimizer_of, params_in_order
from jaxcnn.runs.setup import make_plan
from jaxcnn.train.groups import Group
from jaxcnn.train.layer_decay import layer_rates, layers_of
from jaxcnn.train.optimizers import LAMB, LARS, SGD, Adam, Optax, RMSProp, build_optimizer
from tests.nets import Outputs, TinyNet

SHAPE = (9, 9, 3)


class Backwards(nn.Module):
    """Its layers come in the reverse of the alphabet, and with a norm in front."""

    classes: int = 4

    @nn.compact
    def __call__(self, images, *, train):
        x = nn.GroupNorm(1, name="y_norm")(images)
        for name in ("z", "n", "b"):
            x = nn.relu(nn.LayerNorm(name=f"{name}_norm")(nn.Conv(4, (3, 3), name=name)(x)))
        return nn.Dense(self.classes, name="a")(x.mean((1, 2)))

    def outputs(self, images, *, train):
        return Outputs(self(images, train=train), {})


def tiny(**fields):
    source = Synthetic(SHAPE, classes=4, train=40, test=10)
    return Experiment(**{"model": TinyNet(), "data": Data(SHAPE, source, batch_size=8), "layer_decay": 0.5, **fields})


def test_layers_come_in_the_order_of_the_model_and_not_of_the_alphabet():
    params = params_in_order(tiny(model=Backwards()))
    assert layers_of(params) == [
        [f"params/{name}" for name in each]
        for each in (("y_norm", "z", "z_norm"), ("n", "n_norm"), ("b", "b_norm"), ("a",))
    ]
    rates = layer_rates(params, 0.5)
    assert rates["params/z/kernel"] == rates["params/y_norm/scale"] == 0.125 and rates["params/a/bias"] == 1


def test_factors_are_timms():
    """But for EfficientNet's last convolution, a layer of its own here: timm counts it to the last block."""
    from tests.models.parity import timm

    create = timm().create_model
    from timm.optim import param_groups_layer_decay

    named = {
        "resnet18": {"fc": "head"},
        "efficientnet_lite0": {
            **{"conv_stem": "stem_conv", "bn1": "stem_bn", "conv_head": "head_conv", "bn2": "head_bn"},
            **{"classifier": "head"},
        },
    }
    for name, theirs, beside in (("resnet18", "resnet18", 1.0), ("efficientnet_lite0", "tf_efficientnet_lite0", 0.7)):
        net = create(theirs, pretrained=False)
        groups = param_groups_layer_decay(net, weight_decay=0.0, layer_decay=0.7)
        scales = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
        expected: dict[str, set[float]] = {}
        for path, p in net.named_parameters():
            first, *rest = path.split(".")
            block = f"stage{int(rest[0]) + 1}_{rest[1]}" if first == "blocks" else named[name].get(first, first)
            block = f"{block}_{rest[0]}" if first.startswith("layer") else block
            factor = scales[id(p)] * (1 if block.startswith("head") else beside)
            expected.setdefault(block, set()).add(round(factor, 9))
        made = tiny(model=create_model(name, classes=4), data=Data((64, 64, 3)))
        found: dict[str, set[float]] = {}
        for path, rate in layer_rates(params_in_order(made), 0.7).items():
            top, child = path.split("/")[1:3]
            found.setdefault("head" if top == "head" else child, set()).add(round(rate, 9))
        assert found == expected and len(set().union(*found.values())) > 9


def test_all_that_stands_outside_of_a_detectors_backbone_is_the_head():
    params = {
        "backbone": {"conv1": {"kernel": jnp.zeros((3, 3, 3, 2))}, "conv2": {"kernel": jnp.zeros((3, 3, 2, 2))}},
        "rpn": {"conv": {"kernel": jnp.zeros((3, 3, 2, 2))}},
        "head": {"fc6": {"kernel": jnp.zeros((2, 2))}},
    }
    assert [len(layer) for layer in layers_of(params)] == [1, 1, 2]
    assert sorted(layer_rates(params, 0.5).values()) == [0.25, 0.5, 1, 1]


def test_an_update_against_numpy_beside_groups_and_clipping():
    """SGD with momentum and decay by hand; conv1 and bn1 are one layer, and biases have twice the rate."""
    made = tiny(optimizer=SGD(1.0, weight_decay=0.1), clip_norm=1.0, groups=(Group("*/bias", rate=2.0),))
    built = optimizer_of(made, lambda step: jnp.float32(0.1))
    params = jax.tree.map(lambda x: jnp.full(x.shape, 0.5), params_in_order(made))
    state, gradients = built.init(params), jax.tree.map(jnp.ones_like, params)
    norm = np.sqrt(sum(x.size for x in jax.tree.leaves(params)))
    for momentum in (1, 1.9):
        before = params
        updates, state = built.update(gradients, state, params, step=jnp.int32(0))
        params = optax.apply_updates(params, updates)
        for layer, factor in (("conv1", 0.5), ("bn1", 0.5), ("fc1", 1.0)):
            np.testing.assert_allclose(
                before[layer]["bias"] - params[layer]["bias"], 0.2 * factor * momentum / norm, 1e-5
            )
        if momentum == 1:
            moved = before["conv1"]["kernel"] - params["conv1"]["kernel"]
            np.testing.assert_allclose(moved, 0.1 * 0.5 * (1 / norm + 0.1 * 0.5), rtol=1e-5)


@pytest.mark.parametrize("optimizer", [Adam(), RMSProp(), LARS(), LAMB(), Optax.of(optax.adam(1.0))])
def test_a_factor_is_that_of_the_rate_for_every_optimizer(optimizer):
    """After three steps, in which momentum has gathered, as with the group's own rate."""
    params = {"conv1": {"kernel": jnp.arange(1.0, 7).reshape(2, 3)}, "fc1": {"kernel": jnp.ones((3, 2))}}

    def last(layer_rates, groups):
        built = build_optimizer(optimizer, lambda step: jnp.float32(0.1), None, groups, layer_rates)
        state, now = built.init(params), params
        for gradients in range(3):
            gradients = jax.tree.map(functools.partial(jnp.add, gradients), now)
            updates, state = built.update(gradients, state, now, step=jnp.int32(0))
            now = optax.apply_updates(now, updates)
        return now

    rates = {"params/conv1/kernel": 0.5, "params/fc1/kernel": 1.0}
    expected = last({}, (Group("params/conv1/*", rate=0.5),))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), last(rates, ()), expected)
    assert not np.allclose(expected["conv1"]["kernel"], last({}, ())["conv1"]["kernel"], rtol=1e-4)


def test_each_layer_is_printed_and_mistakes_are_one_sentence():
    data = dataclasses.replace(tiny().data, evaluation_splits=(), test_splits=())
    assert make_plan(tiny(data=data)).how_trained() == [
        "layer 1 of 2: learning rate times 0.5, params/conv1, params/bn1",
        "layer 2 of 2: learning rate times 1, params/fc1",
    ]
    for decay in (0.0, 1.5, float("nan")):
        with pytest.raises(UserError, match=r"layer_decay is .*above 0 and at most 1"):
            tiny(layer_decay=decay)
    with pytest.raises(UserError, match="one layer only"):
        make_plan(tiny(data=Data((8, 8, 1)), model=create_model("linear", classes=10)))
