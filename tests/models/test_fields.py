"""The fields `norm`, `pooling` and their order in AlexNet, ZFNet and VGG, against the same net in torch's functions."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.errors import UserError
from jaxcnn.models import create_model
from jaxcnn.models.layers import Norm, Pooling, pool, pool_input
from jaxcnn.models.vgg import torchvision_name
from jaxcnn.summary.summary import endpoints
from tests.models.parity import close, photo, to_torch, torch

F = torch.nn.functional
NORMS = ["none", "batch", "layer", "group", "lrn", "lrn_caffe"]
POOLINGS = ["max", "average", "overlapping"]


def normalized(x, kind, params):
    """torch's layer of this name, in training mode; `params` are ours."""
    affine = [torch.from_numpy(np.asarray(params[key])) for key in ("scale", "bias")] if params else []
    return {
        "none": lambda: x,
        "batch": lambda: F.batch_norm(x, None, None, *affine, training=True),
        "layer": lambda: F.group_norm(x, 1, *affine),
        "group": lambda: F.group_norm(x, math.gcd(32, x.shape[1]), *affine),
        "lrn": lambda: F.local_response_norm(x, 5, alpha=5e-4, beta=0.75, k=2.0),
        "lrn_caffe": lambda: F.local_response_norm(x, 5, alpha=1e-4, beta=0.75, k=1.0),
    }[kind]()


def pooled(x, kind, ceil_mode):
    return {
        "max": lambda: F.max_pool2d(x, 2),
        "average": lambda: F.avg_pool2d(x, 2),
        "overlapping": lambda: F.max_pool2d(x, 3, 2, ceil_mode=ceil_mode),
    }[kind]()


def convolved(x, params, **kind):
    kernel, bias = (torch.from_numpy(np.asarray(params[key])) for key in ("kernel", "bias"))
    return F.conv2d(x, kernel.permute(3, 2, 0, 1), bias, **kind)


def alexnet(x, params, norm, pooling, *, first, second, groups=1, after=False, ceil_mode=False):
    """Maps of AlexNet or ZFNet; `first` and `second` are stride and padding of conv1 and conv2."""
    local, ends = norm.startswith("lrn"), {}
    for i in range(1, 6):
        stride, padding = {1: first, 2: second}.get(i, (1, 1))
        split = groups if i in (2, 4, 5) else 1
        x = convolved(x, params[f"conv{i}"], stride=stride, padding=padding, groups=split)
        x = F.relu(x if local else normalized(x, norm, params.get(f"bn{i}")))
        if local and i < 3 and not after:
            x = normalized(x, norm, None)
        ends[f"conv{i}"] = x
        if i in (1, 2, 5):
            x = pooled(x, pooling, ceil_mode)
        if local and i < 3 and after:
            x = normalized(x, norm, None)
    return ends | {"final": x}


def vgg11(x, params, norm, pooling):
    ends = {}
    for stage, layers in enumerate((1, 1, 2, 2, 2), 1):
        for layer in range(1, layers + 1):
            x = convolved(x, params[f"conv{stage}_{layer}"], padding=1)
            x = F.relu(normalized(x, norm, params.get(f"bn{stage}_{layer}")))
        ends[f"stage{stage}"] = x
        x = pooled(x, pooling, True)
    return ends | {"final": x}


def check(name, reference, size, norm, pooling, **kind):
    """Every endpoint in training mode, with random parameters and images of some 100: at 1 no alpha is seen."""
    model = create_model(name, width=0.125, norm=norm, pooling=pooling, widths=(8, 8), dropout=0.0)
    images, rng = 100 * photo(size, batch=2), np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.asarray(images), train=False))

    def draw(path, leaf):
        scale = np.sqrt(6 / math.prod(leaf.shape[:-1])) if path[-1].key == "kernel" else 0.5
        return (rng.uniform(-scale, scale, leaf.shape) + (path[-1].key == "scale")).astype(np.float32)

    variables = jax.tree_util.tree_map_with_path(draw, shapes)
    ends, _ = model.apply(variables, images, train=True, mutable=["batch_stats"], method="features")
    expected = reference(to_torch(images), variables["params"]["backbone"], norm, pooling, **kind)
    assert ends.keys() == expected.keys()
    for end, value in expected.items():
        close(ends[end], value.numpy().transpose(0, 2, 3, 1), 1e-4)
    assert ("batch_stats" in variables) == (norm == "batch")


def test_the_lists_are_complete():
    others = {"frozen_batch"}  # tests/models/test_faster_rcnn.py
    assert set(NORMS) | others == set(Norm.__args__) and set(POOLINGS) == set(Pooling.__args__)


@pytest.mark.parametrize(
    "norm, pooling", [*((norm, "overlapping") for norm in NORMS), *(("lrn", pooling) for pooling in POOLINGS[:2])]
)
def test_alexnet(norm, pooling):
    check("alexnet", alexnet, (83, 99), norm, pooling, first=(4, 0), second=(1, 2), groups=2)


@pytest.mark.parametrize("norm, pooling", [("lrn", "overlapping"), ("batch", "max"), ("lrn", "average")])
def test_zfnet(norm, pooling):
    kind = {"first": (2, 1), "second": (2, 0), "after": True, "ceil_mode": True}
    check("zfnet", alexnet, (83, 99), norm, pooling, **kind)


@pytest.mark.parametrize(
    "norm, pooling", [*((norm, "max") for norm in NORMS), *(("none", pooling) for pooling in POOLINGS[1:])]
)
def test_vgg(norm, pooling):
    check("vgg11", vgg11, (64, 83), norm, pooling)


@pytest.mark.parametrize("pooling, smallest", [("max", 32), ("average", 32), ("overlapping", 32)])
def test_smallest_input_of_vgg(pooling, smallest):
    model = create_model("vgg11", pooling=pooling)
    images = jnp.zeros((1, smallest, smallest, 3))
    ends = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), images, train=False, method="features")[0])
    assert ends["final"].shape[1:3] == (1, 1)
    with pytest.raises(UserError, match=f"needs {smallest}x{smallest}"):
        jax.eval_shape(lambda: model.init(jax.random.key(0), images[:, 1:], train=False))


@pytest.mark.parametrize("name, kernels", [("vgg13", (5, 5, 5, 5, 5)), ("vgg16", (5, 5, 7, 7, 7))])
def test_one_large_filter_sees_what_vggs_stack_sees(name, kernels):
    stacked, single = endpoints(name), endpoints(name, stacked=False)
    assert stacked == single  # shapes, strides and receptive fields
    model = create_model(name, stacked=False)
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 224, 224, 3)), train=False))["params"]
    shapes = [params["backbone"][f"conv{stage}_1"]["kernel"].shape for stage in range(1, 6)]
    widths = (3, 64, 128, 256, 512, 512)
    assert shapes == [(k, k, i, o) for k, i, o in zip(kernels, widths, widths[1:], strict=False)]
    assert len(params["backbone"]) == 5


def test_a_single_filter_for_vggs_c_is_refused():
    model = create_model("vgg16_c", stacked=False)
    with pytest.raises(UserError, match="stacked=False has no form of C"):
        jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False))


@pytest.mark.parametrize("kind", POOLINGS)
@pytest.mark.parametrize("ceil_mode", [False, True])
def test_smallest_input_of_a_pooling(kind, ceil_mode):
    for size in range(1, 6):
        side = pool_input(size, kind, ceil_mode=ceil_mode)
        assert pool(jnp.zeros((1, side, side, 1)), kind, ceil_mode=ceil_mode).shape[1] == size
        try:
            smaller = pool(jnp.zeros((1, side - 1, side, 1)), kind, ceil_mode=ceil_mode).shape[1]
        except UserError:
            smaller = 0
        assert smaller < size


def test_a_wrong_pooling_is_answered():
    with pytest.raises(UserError, match="did you mean 'overlapping'"):
        pool(jnp.zeros((1, 4, 4, 1)), "overlaping")


@pytest.mark.parametrize("norm, place", [("none", 18), ("lrn", 18), ("batch", 25), ("group", 25)])
def test_torchvisions_places_count_norms_with_parameters(norm, place):
    assert torchvision_name(create_model("vgg11", norm=norm), "backbone/conv5_2") == f"features.{place}"
