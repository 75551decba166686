"""ResNets against torchvision's, and the forms that it lacks against a small net written from the paper."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.errors import UserError
from jaxcnn.models import create_model
from jaxcnn.models.pretrained import from_torch
from tests.models.parity import check_evaluation, check_training, close, photo, randomize, to_torch, torch, torchvision

slow = pytest.mark.skipif(
    "JAXCNN_SLOW_TESTS" not in os.environ, reason="takes long: set JAXCNN_SLOW_TESTS=1 to run it, too"
)


def last_map(net, x):
    """torchvision's net up to its global pooling."""
    for name, layer in net.named_children():
        if name == "avgpool":
            return x
        x = layer(x)


def reference(name):
    """torchvision's net of random weights; v1 is the same with the stride in the first 1x1 (paper, section 3.3)."""
    net = getattr(torchvision(), name.removesuffix("_v1"))(weights=None)
    if name.endswith("_v1"):
        for layer in (net.layer2, net.layer3, net.layer4):
            layer[0].conv1.stride, layer[0].conv2.stride = (2, 2), (1, 1)
    return randomize(net)


NAMES = ["resnet18", "resnet34", "resnet50", "resnet50_v1", "wide_resnet50_2", "resnext50_32x4d"]
DEEP = ["resnet101", "resnet152", "resnet101_v1", "resnet152_v1"]
SLOW = [pytest.param(name, marks=slow) for name in DEEP]


@pytest.mark.parametrize("name", NAMES + SLOW)
def test_equals_torchvisions(name):
    check_evaluation(name, reference(name), [(224, 224), (193, 225)], features=last_map)


@pytest.mark.parametrize("name", NAMES + SLOW)
def test_trains_as_torchvisions(name):
    check_training(name, reference(name), (97, 113))


class Basic(torch.nn.Module):
    """Nets of basic blocks as sections 3.3, 4.1 and 4.2 describe them: options A, B, C and plain nets."""

    def __init__(self, depth, shortcut, cifar, classes):
        super().__init__()
        width = 16 if cifar else 64
        kernel, stride = (3, 1) if cifar else (7, 2)
        self.conv1 = torch.nn.Conv2d(3, width, kernel, stride, kernel // 2, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(width)
        self.pool = torch.nn.Identity() if cifar else torch.nn.MaxPool2d(3, 2, 1)
        self.stages = len(depth)
        inputs = width
        for stage, blocks in enumerate(depth, 1):
            layer = torch.nn.Sequential()
            for number in range(blocks):
                stride = 2 if number == 0 and stage > 1 else 1
                layer.append(BasicBlock(inputs, width, stride, shortcut))
                inputs = width
            setattr(self, f"layer{stage}", layer)
            width *= 2
        self.fc = torch.nn.Linear(inputs, classes)

    def features(self, x):
        x = self.pool(self.bn1(self.conv1(x)).relu())
        for stage in range(1, self.stages + 1):
            x = getattr(self, f"layer{stage}")(x)
        return x

    def forward(self, x):
        return self.fc(self.features(x).mean((2, 3)))


class BasicBlock(torch.nn.Module):
    def __init__(self, inputs, width, stride, shortcut):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(width)
        self.conv2 = torch.nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = torch.nn.BatchNorm2d(width)
        self.shortcut, self.stride = shortcut, stride
        if shortcut == "C" or (shortcut == "B" and (stride != 1 or inputs != width)):
            self.downsample = torch.nn.Sequential(
                torch.nn.Conv2d(inputs, width, 1, stride, bias=False), torch.nn.BatchNorm2d(width)
            )

    def forward(self, x):
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        if self.shortcut == "none":
            return y.relu()
        if hasattr(self, "downsample"):
            return (y + self.downsample(x)).relu()
        padded = torch.zeros_like(y)
        padded[:, : x.shape[1]] = x[:, :, :: self.stride, :: self.stride]
        return (y + padded).relu()


def cifar(name, shortcut="A"):
    n = (int(name.removeprefix("resnet").removesuffix("_cifar")) - 2) // 6
    return randomize(Basic((n, n, n), shortcut, True, 10))


def basic_map(net, x):
    return net.features(x)


@pytest.mark.parametrize("depth", [20, 32, 44, 56, 110])
def test_cifar_nets_equal_the_papers(depth):
    name = f"resnet{depth}_cifar"
    sizes = [(32, 32), (29, 35)] if depth == 20 else [(29, 35)]
    check_evaluation(name, cifar(name), sizes, features=basic_map)


@pytest.mark.parametrize("shortcut", ["A", "B", "C", "none"])
def test_cifar_shortcuts_equal_the_papers(shortcut):
    """With "none": plain-20."""
    net = cifar("resnet20_cifar", shortcut)
    check_evaluation("resnet20_cifar", net, [(32, 32), (29, 35)], features=basic_map, shortcut=shortcut)
    check_training("resnet20_cifar", net, (29, 35), shortcut=shortcut)


@pytest.mark.parametrize("name, depth", [("plain18", (2, 2, 2, 2)), ("plain34", (3, 4, 6, 3))])
def test_plain_nets_equal_the_papers(name, depth):
    net = randomize(Basic(depth, "none", False, 1000))
    check_evaluation(name, net, [(224, 224), (193, 225)], features=basic_map)
    check_training(name, net, (97, 113))


def test_option_a_pads_between_bottlenecks():
    """Stage 2 widens its input without a stride."""
    model = create_model("resnet50", shortcut="A", width=0.0625, depth=(1,))
    images = jnp.asarray(photo((33, 35)))
    variables = model.init(jax.random.key(0), images, train=False)
    names = variables["params"]["backbone"]["layer1_0"].keys()
    assert names == {"conv1", "bn1", "conv2", "bn2", "conv3", "bn3"}
    variables["params"]["backbone"]["layer1_0"]["bn3"]["scale"] *= 0
    ends = model.apply(variables, images, train=False, method="features")
    pooled = torch.nn.functional.max_pool2d(to_torch(np.asarray(ends["stage1"])), 3, 2, 1).numpy().transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(ends["stage2"][..., :4], pooled)
    assert ends["stage2"].shape[-1] == 16 and not np.any(ends["stage2"][..., 4:])


def test_average_pooling_counts_no_padding():
    net = reference("resnet18")
    net.maxpool = torch.nn.AvgPool2d(3, 2, 1, count_include_pad=False)
    check_evaluation("resnet18", net, [(65, 49)], features=last_map, pooling="average")


def test_without_a_block():
    """Leaving out a residual branch is a residual of zero; leaving out a block of a plain net is the identity."""
    images = jnp.asarray(photo((32, 32)))
    for shortcut, blocks in (("A", ("layer1_2", "layer2_0")), ("B", ("layer3_0",)), ("none", ("layer2_1",))):
        net = cifar("resnet20_cifar", shortcut).eval()
        variables = from_torch("resnet20_cifar", net.state_dict(), shortcut=shortcut)
        for name in blocks:
            stage, number = name.split("_")
            layer = getattr(net, stage)
            if shortcut == "none":
                layer[int(number)] = torch.nn.Identity()
            else:
                torch.nn.init.zeros_(layer[int(number)].bn2.weight)
                torch.nn.init.zeros_(layer[int(number)].bn2.bias)
        model = create_model("resnet20_cifar", shortcut=shortcut, without=blocks)
        with torch.no_grad():
            expected = net(to_torch(np.asarray(images))).numpy()
        close(model.apply(variables, images, train=False), expected, 1e-4)


def init(name, size=(32, 32), **fields):
    return create_model(name, **fields).init(jax.random.key(0), jnp.zeros((1, *size, 3)), train=False)


def test_what_a_plain_net_cannot_do():
    with pytest.raises(UserError, match="layer2_0 changes the map's shape"):
        init("resnet20_cifar", shortcut="none", without=("layer2_0",))
    with pytest.raises(UserError, match="no shortcut that could stand in"):
        init("plain18", drop_path=0.2)


def test_wrong_values_are_named():
    with pytest.raises(UserError, match="no block 'layer4_0'; did you mean"):
        init("resnet20_cifar", without=("layer4_0",))
    with pytest.raises(UserError, match="no shortcut 'D'"):
        init("resnet20_cifar", shortcut="D")


def test_stochastic_depth_grows_linearly():
    """Two blocks and 1 for the last: its residual always goes, the first one's with 1/2, and counts twice if not."""
    fields = {"depth": (2,), "width": 0.25, "head": create_model("resnet20_cifar").head}
    model = create_model("resnet20_cifar", drop_path=1.0, **fields)
    images = jnp.repeat(jnp.asarray(photo((8, 8))), 64, axis=0)
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


def test_zero_init_starts_each_block_as_its_shortcut():
    model = create_model("resnet20_cifar", zero_init=True)
    images = jnp.asarray(photo((8, 8)))
    ends = model.init_with_output(jax.random.key(0), images, train=False, method="features")[0]
    np.testing.assert_array_equal(ends["stage2"], ends["stage1"])
    assert np.any(ends["stage1"])


def test_convolutions_have_biases_where_no_norm_has():
    for norm in ("none", "lrn"):
        params = jax.eval_shape(lambda norm=norm: init("resnet18", norm=norm))["params"]["backbone"]
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
        jax.eval_shape(lambda: init(name, (0, 4)))


def test_he_initialisation():
    kernel = init("resnet20_cifar")["params"]["backbone"]["layer3_1"]["conv1"]["kernel"]
    assert abs(np.std(kernel) / np.sqrt(2 / (9 * 64)) - 1) < 0.02  # variance 2 / fan out
