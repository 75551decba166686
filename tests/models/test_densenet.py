"""DenseNet against torchvision's, and the CIFAR forms against the paper written with torch's functions."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.errors import UserError
from jaxcnn.models import create_model
from jaxcnn.models.pretrained import from_torch
from tests.compilation import quick
from tests.models.parity import (
    PARITY_SIZES,
    calibrate,
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

NAMES = ["densenet121", "densenet161", "densenet169", "densenet201", "densenet264"]


def reference(name):
    """torchvision's class has no name for 264: it is built from the paper's Table 1."""
    if name == "densenet264":
        net = torchvision().DenseNet(32, (6, 12, 64, 48), 64)
    else:
        net = getattr(torchvision(), name)(weights=None)
    return calibrate(randomize(net))


def last_map(net, images):
    return torch.relu(net.features(images))


def test_densenet121_equals_torchvisions():
    net = reference("densenet121")
    check_evaluation("densenet121", net, PARITY_SIZES, features=last_map, compiled=True)


def test_training_equals_torchvisions():
    """With few layers in each block; the nets of the table take minutes."""
    net = calibrate(randomize(torchvision().DenseNet(32, (3, 2, 3, 2), 64)))
    check_training("densenet121", net, (97, 113), depth=(3, 2, 3, 2), compiled=True)


def test_densenet161_equals_torchvisions_at_a_small_size():
    """Its growth rate and stem are its own; how deep it is, is in its count."""
    net = calibrate(randomize(torchvision().DenseNet(48, (3, 2, 3, 2), 96)))
    check_evaluation("densenet161", net, [(97, 113)], features=last_map, compiled=True, depth=(3, 2, 3, 2))


@slow
@pytest.mark.parametrize("name", NAMES)
def test_every_densenet_equals_torchvisions(name):
    net = reference(name)
    check_evaluation(name, net, PARITY_SIZES, features=last_map, compiled=True)
    check_training(name, net, (97, 113), compiled=True)


def test_the_names_of_torchvisions_files_are_known_too():
    """They are older than the rule that a module's name has no dot; torchvision renames them by this expression."""
    pattern = re.compile(
        r"^(.*denselayer\d+\.(?:norm|relu|conv))\.((?:[12])\.(?:weight|bias|running_mean|running_var))$"
    )
    weights = randomize(torchvision().DenseNet(4, (2, 2), 8, num_classes=3)).state_dict()
    weights = {key: value for key, value in weights.items() if not key.endswith("num_batches_tracked")}
    fields = {"growth": 4, "depth": (2, 2), "stem_width": 8, "classes": 3}
    old = {re.sub(r"(denselayer\d+\.\w+)([12]\.)", r"\1.\2", key): value for key, value in weights.items()}
    assert {"".join(pattern.match(key).groups()) if pattern.match(key) else key for key in old} == weights.keys()
    assert old.keys() != weights.keys()
    jax.tree.map(
        np.testing.assert_array_equal,
        from_torch("densenet121", old, **fields),
        from_torch("densenet121", weights, **fields),
    )


def cifar_net(images, params, stats, layers, bottleneck):
    """Section 3 of the paper on our variables, NCHW; the running statistics are given."""
    weight = torch.from_numpy

    def convolve(x, kernel):
        kernel = weight(kernel.transpose(3, 2, 0, 1).copy())
        return torch.nn.functional.conv2d(x, kernel, padding=kernel.shape[-1] // 2)

    def norm_relu_conv(x, module, suffix):
        norm, running = module[f"norm{suffix}"], stats_of[f"norm{suffix}"]
        x = (x - weight(running["mean"])[:, None, None]) / torch.sqrt(weight(running["var"])[:, None, None] + 1e-5)
        x = torch.relu(x * weight(norm["scale"])[:, None, None] + weight(norm["bias"])[:, None, None])
        return convolve(x, module[f"conv{suffix}"]["kernel"]) if f"conv{suffix}" in module else x

    net, running_net = params["backbone"], stats["backbone"]
    x = convolve(to_torch(images), net["conv0"]["kernel"])
    for block in (1, 2, 3):
        maps = [x]
        for layer in range(1, layers + 1):
            module, stats_of = (tree[f"denseblock{block}_denselayer{layer}"] for tree in (net, running_net))
            new = torch.cat(maps, 1)  # equation 2
            for suffix in (1, 2) if bottleneck else (1,):
                new = norm_relu_conv(new, module, suffix)
            maps.append(new)
        x = torch.cat(maps, 1)
        if block < 3:
            module, stats_of = net[f"transition{block}"], running_net[f"transition{block}"]
            x = torch.nn.functional.avg_pool2d(norm_relu_conv(x, module, ""), 2)
    stats_of = running_net
    x = norm_relu_conv(x, net, 5)
    head = params["head"]["fc"]
    return (x.mean((2, 3)) @ weight(head["kernel"]) + weight(head["bias"])).numpy()


@pytest.mark.parametrize(
    "name, layers, bottleneck, fields",
    [
        ("densenet40_k12_cifar", 12, False, {}),
        # How deep the others are is in their counts.
        ("densenet100_bc_k12_cifar", 3, True, {"depth": (3, 3, 3)}),
        ("densenet190_bc_k40_cifar", 3, True, {"depth": (3, 3, 3)}),
    ],
)
def test_cifar_nets_equal_the_paper_written_with_torch(name, layers, bottleneck, fields):
    model = create_model(name, **fields)
    images = photo((32, 32))
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        role = path[-1].key
        if role in ("scale", "var"):
            return rng.uniform(0.75, 1.25, leaf.shape).astype(np.float32)
        scale = np.sqrt(2 / np.prod(leaf.shape[:-1])) if role == "kernel" else 0.1
        return rng.normal(0, scale, leaf.shape).astype(np.float32)

    variables = jax.tree_util.tree_map_with_path(draw, shapes)
    theirs = cifar_net(images, variables["params"], variables["batch_stats"], layers, bottleneck)
    ours = quick(functools.partial(model.apply, train=False))(variables, jnp.asarray(images))
    close(ours, theirs, 1e-4)


def initialize(model, images):
    return quick(lambda: model.init(jax.random.key(0), images, train=False))()


def ends(name, shape, train=False, **fields):
    model = create_model(name, **fields)
    images = jnp.zeros((1, *shape, 3))
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    maps, _ = jax.eval_shape(lambda: model.init_with_output(keys, images, train=train, method="features"))
    return {name: end.shape[1:] for name, end in maps.items()}


def test_widths_of_the_blocks_are_table_1s():
    assert ends("densenet161", (224, 224)) == {
        "stem": (112, 112, 96),
        "denseblock1": (56, 56, 384),
        "denseblock2": (28, 28, 768),
        "denseblock3": (14, 14, 2112),
        "denseblock4": (7, 7, 2208),
        "final": (7, 7, 2208),
    }


def test_adding_keeps_the_widths_at_which_the_blocks_begin():
    fields = {"depth": (2, 3, 2), "growth": 8, "stem_width": 16}
    concatenated, added = (
        ends("densenet121", (64, 64), combine=combine, **fields) for combine in ("concatenate", "add")
    )
    assert [concatenated[f"denseblock{n}"][2] for n in (1, 2, 3)] == [32, 40, 36]
    assert [added[f"denseblock{n}"][2] for n in (1, 2, 3)] == [16, 16, 20]
    longer, shorter = (
        create_model("densenet40_k12_cifar", combine="add", growth=4, depth=depth) for depth in ((1, 2), (1, 1))
    )
    images = jnp.asarray(photo((8, 8)))
    variables = initialize(longer, images)
    last = variables["params"]["backbone"]["denseblock2_denselayer2"]["conv1"]
    last["kernel"] = jnp.zeros_like(last["kernel"])  # a branch of zeros leaves its input as it is
    maps = [
        quick(functools.partial(net.apply, train=False, method="features"))(variables, images)["denseblock2"]
        for net in (longer, shorter)
    ]
    np.testing.assert_array_equal(*maps)
    with pytest.raises(UserError, match=r"no combine 'sum'; there is .'concatenate', 'add'"):
        ends("densenet121", (64, 64), combine="sum")


def test_dropout_is_after_every_convolution_but_the_first_and_not_in_the_head():
    fields = {"depth": (1, 1), "growth": 4, "conv_dropout": 0.999999, "classes": 3}
    model = create_model("densenet100_bc_k12_cifar", **fields)
    images = jnp.asarray(photo((8, 8)))
    variables = initialize(model, images)
    apply = functools.partial(model.apply, train=True, rngs={"dropout": jax.random.key(0)}, mutable=["batch_stats"])
    features, _ = quick(functools.partial(apply, method="features"))(variables, images)
    assert np.abs(features["stem"]).max() > 0 and np.abs(features["denseblock1"][..., :24]).max() > 0
    assert np.abs(features["denseblock1"][..., 24:]).max() == 0 and np.abs(features["denseblock2"]).max() == 0
    logits = model.apply(variables, features["final"] + 1, train=True, method="classify")
    assert np.abs(logits).min() > 0


@pytest.mark.parametrize("norm", ["none", "layer", "group", "lrn"])
def test_other_norms_keep_shapes_and_bias_where_they_have_none(norm):
    fields = {"depth": (2, 2), "growth": 8, "norm": norm}
    assert ends("densenet121", (64, 64), **fields)["final"] == (8, 8, 56)
    model = create_model("densenet121", **fields)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)), train=False))
    assert ("bias" in variables["params"]["backbone"]["transition1"]["conv"]) == (norm in ("none", "lrn"))


@pytest.mark.parametrize("name, smallest", [("densenet121", 29), ("densenet40_k12_cifar", 4)])
def test_the_smallest_input(name, smallest):
    assert ends(name, (smallest, smallest + 7))["final"][0] == 1
    with pytest.raises(UserError, match=f"too small.*needs {smallest}x{smallest}"):
        ends(name, (smallest - 1, smallest + 7))
