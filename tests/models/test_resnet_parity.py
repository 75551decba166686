"""ResNets against torchvision's, and the forms that it lacks against a small net written from the paper."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.models import create_model
from jaxcnn.models.pretrained import from_torch
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


def when_slow(*values):
    return [pytest.param(value, marks=slow) for value in values]


DEEP = when_slow("resnet34", "wide_resnet50_2", "resnet101", "resnet152", "resnet101_v1", "resnet152_v1")


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet50_v1", "resnext50_32x4d", *DEEP])
def test_equals_torchvisions(name):
    check_evaluation(name, reference(name), PARITY_SIZES, features=last_map)


@pytest.mark.parametrize("name", when_slow("resnet18", "resnet50", "resnet50_v1", "resnext50_32x4d") + DEEP)
def test_trains_as_torchvisions(name):
    check_training(name, reference(name), (97, 113))


@pytest.mark.parametrize(
    "name, kind, fields",
    [
        ("resnet18", "BasicBlock", {}),
        ("resnet50", "Bottleneck", {}),
        ("resnext50_32x4d", "Bottleneck", {"groups": 32, "width_per_group": 4}),
    ],
)
def test_shallow_forms_train_as_torchvisions(name, kind, fields):
    """Every kind of block, in nets of two stages: shortcuts with and without projection, with and without stride."""
    resnet = torchvision().resnet
    net = resnet.ResNet(getattr(resnet, kind), (2, 1, 1, 1), num_classes=10, **fields)
    net.fc = torch.nn.Linear(net.layer3[0].conv1.in_channels, 10)
    net.layer3 = net.layer4 = torch.nn.Identity()
    check_training(name, randomize(net), (49, 65), depth=(2, 1), classes=10, compiled=True)


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


@pytest.mark.parametrize("depth", [20, *when_slow(32, 44, 56), 110])
def test_cifar_nets_equal_the_papers(depth):
    name = f"resnet{depth}_cifar"
    sizes = [(32, 32), (29, 35)] if depth == 20 else [(29, 35)]
    check_evaluation(name, cifar(name), sizes, features=basic_map)


@pytest.mark.parametrize("shortcut", ["A", "B", "C", "none"])
def test_cifar_shortcuts_equal_the_papers(shortcut):
    """With "none": plain-20."""
    net = cifar("resnet20_cifar", shortcut)
    check_evaluation("resnet20_cifar", net, [(29, 35)], features=basic_map, shortcut=shortcut)
    net = randomize(Basic((2, 1, 1), shortcut, True, 10))
    check_training("resnet20_cifar", net, (29, 35), shortcut=shortcut, depth=(2, 1, 1))


@pytest.mark.parametrize("name, depth", [("plain18", (2, 2, 2, 2)), ("plain34", (3, 4, 6, 3))])
def test_plain_nets_equal_the_papers(name, depth):
    net = randomize(Basic(depth, "none", False, 1000))
    check_evaluation(name, net, [(193, 225)], features=basic_map)


def test_plain_net_trains_as_the_papers():
    net = randomize(Basic((2, 1), "none", False, 10))
    check_training("plain18", net, (49, 65), depth=(2, 1), classes=10, compiled=True)


def test_average_pooling_counts_no_padding():
    net = reference("resnet18")
    net.maxpool = torch.nn.AvgPool2d(3, 2, 1, count_include_pad=False)
    check_evaluation("resnet18", net, [(193, 225)], features=last_map, pooling="average")


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
