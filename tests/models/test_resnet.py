"""Residual nets: fields that the comparison with PyTorch does not reach, shapes, initialisation, what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.errors import UserError
from jaxcnn.models import create_model
from jaxcnn.models.layers import max_pool


def test_option_a_pads_between_bottlenecks():
    """Stage 2 widens its input without a stride: the pooled map, then zeros."""
    model = create_model("resnet50", shortcut="A", width=0.0625, depth=(1,), without=("layer1_0",))
    images = jax.random.normal(jax.random.key(1), (1, 33, 35, 3))
    ends, variables = model.init_with_output(jax.random.key(0), images, train=False, method="features")
    assert "layer1_0" not in variables["params"]["backbone"]
    np.testing.assert_array_equal(ends["stage2"][..., :4], max_pool(ends["stage1"], 3, stride=2, padding=1))
    assert ends["stage2"].shape[-1] == 16 and not np.any(ends["stage2"][..., 4:])


def shapes(name, size=(32, 32), **fields):
    model = create_model(name, **fields)
    return jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, *size, 3)), train=False))


def test_what_a_plain_net_cannot_do():
    with pytest.raises(UserError, match="layer2_0 changes the map's shape"):
        shapes("resnet20_cifar", shortcut="none", without=("layer2_0",))
    with pytest.raises(UserError, match="no shortcut that could stand in"):
        shapes("plain18", drop_path=0.2)


def test_wrong_values_are_named():
    with pytest.raises(UserError, match="no block 'layer4_0'; did you mean"):
        shapes("resnet20_cifar", without=("layer4_0",))
    with pytest.raises(UserError, match="no shortcut 'D'"):
        shapes("resnet20_cifar", shortcut="D")


def test_stochastic_depth_grows_linearly():
    """Two blocks and 1 for the last: its residual always goes, the first one's with 1/2, and counts twice if not."""
    fields = {"depth": (2,), "width": 0.25, "head": create_model("resnet20_cifar").head}
    model = create_model("resnet20_cifar", drop_path=1.0, **fields)
    images = jnp.repeat(jax.random.normal(jax.random.key(2), (1, 8, 8, 3)), 64, axis=0)
    variables = model.init(jax.random.key(0), images, train=False)
    out = model.apply(
        variables, images, train=True, method="features", rngs={"dropout": jax.random.key(1)}, mutable=["batch_stats"]
    )[0]["final"]

    def final(*without):
        other = create_model("resnet20_cifar", without=without, **fields)
        return other.apply(variables, images, train=True, method="features", mutable=["batch_stats"])[0]["final"]

    dropped = np.abs(out - final("layer1_0", "layer1_1")).max((1, 2, 3)) < 1e-5
    assert 16 < dropped.sum() < 48
    params = jax.tree.map(lambda leaf: leaf, variables["params"])
    for leaf in ("scale", "bias"):
        params["backbone"]["layer1_0"]["bn2"][leaf] *= 2
    variables = variables | {"params": params}
    np.testing.assert_allclose(out[~dropped], final("layer1_1")[~dropped], atol=1e-5)


def test_initialisation():
    """He's, variance 2 / fan out; with `zero_init` each block starts as its shortcut."""
    model = create_model("resnet20_cifar", zero_init=True, depth=(1, 1))
    images = jax.random.normal(jax.random.key(1), (1, 8, 8, 3))
    ends, variables = model.init_with_output(jax.random.key(0), images, train=False, method="features")
    np.testing.assert_array_equal(ends["stage2"], ends["stage1"])
    np.testing.assert_array_equal(ends["stage3"][..., :16], ends["stage2"][:, ::2, ::2])
    assert np.any(ends["stage1"])
    kernel = variables["params"]["backbone"]["layer2_0"]["conv1"]["kernel"]
    assert abs(np.std(kernel) / np.sqrt(2 / (9 * 32)) - 1) < 0.04


def test_convolutions_have_biases_where_no_norm_has():
    for norm in ("none", "lrn"):
        params = shapes("resnet18", norm=norm)["params"]["backbone"]
        assert params["conv1"].keys() == {"kernel", "bias"} and "bn1" not in params
        assert params["layer2_0"].keys() == {"conv1", "conv2", "downsample_0"}
        assert params["layer2_0"]["downsample_0"].keys() == {"kernel", "bias"}


@pytest.mark.parametrize(
    "name, size, stages",
    [
        ("resnet18", 224, [(112, 64), (56, 64), (28, 128), (14, 256), (7, 512)]),
        ("resnet50", 224, [(112, 64), (56, 256), (28, 512), (14, 1024), (7, 2048)]),
        ("resnet20_cifar", 32, [(32, 16), (32, 16), (16, 32), (8, 64)]),
        ("resnet18", 1, [(1, 64), (1, 64), (1, 128), (1, 256), (1, 512)]),
        ("resnet20_cifar", 1, [(1, 16), (1, 16), (1, 32), (1, 64)]),
    ],
)
def test_stages(name, size, stages):
    model = create_model(name)
    images = jnp.zeros((1, size, size, 3))
    ends = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), images, train=False, method="features")[0])
    expected = {f"stage{number}": (1, side, side, width) for number, (side, width) in enumerate(stages, 1)}
    assert {key: end.shape for key, end in ends.items()} == expected | {"final": expected[f"stage{len(stages)}"]}
    with pytest.raises(UserError, match="needs 1x1"):
        shapes(name, (0, 4))
