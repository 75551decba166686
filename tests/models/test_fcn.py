"""FCN: counts, the released nets in PyTorch's functions, torchvision's nets, where the output lies, and starts."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxcnn.errors import UserError
from jaxcnn.models import Segmenter, create_model
from jaxcnn.models.dilated import DilatedResNet, FCNHead
from jaxcnn.models.fcn import FCNVGG, SkipHead, from_vgg16, resnet_maps, vgg_maps
from jaxcnn.models.resnet import ResNet
from jaxcnn.ops.upsampling import Grid, bilinear_kernel, kernel_size, pixels, stretched, transposed_conv, upsample
from jaxcnn.summary.summary import endpoints, summarize
from jaxcnn.train.init_from import InitFrom, chosen
from jaxcnn.train.state import create_state
from tests.compilation import quick
from tests.slow import slow

NAMES = ("fcn32s_vgg16", "fcn16s_vgg16", "fcn8s_vgg16")
NARROW = {"width": 1 / 32, "classes": 5}


def shapes(name, size=33, method="__call__", **fields):
    model, images = create_model(name, **fields), jnp.zeros((1, size, size, 3))
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(0)}
    return jax.eval_shape(lambda: model.init(keys, images, train=False, method=method))


def parameters(name, **fields):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes(name, **fields)["params"]))


def draw(variables, seed=0):
    """Kernels that keep the signal's scale, and biases that are seen."""
    rng = np.random.default_rng(seed)

    def one(path, leaf):
        scale = np.sqrt(2 / math.prod(leaf.shape[:-1])) if path[-1].key == "kernel" else 0.1
        return jnp.asarray(rng.normal(0, scale, leaf.shape), jnp.float32)

    return jax.tree_util.tree_map_with_path(one, variables)


@pytest.mark.parametrize(
    "upsampling, counts",
    [
        ("fixed", (134_346_581, 134_357_354, 134_362_751)),
        ("learned", (136_152_917, 134_815_994, 134_489_759)),
        ("per_class", (134_432_597, 134_379_194, 134_368_799)),
    ],
)
def test_parameters_of_the_released_nets(upsampling, counts):
    assert tuple(parameters(name, upsampling=upsampling) for name in NAMES) == counts


def test_parameters_of_torchvisions():
    for name, without, with_auxiliary in (
        ("fcn_resnet50", 32_957_013, 35_322_218),
        ("fcn_resnet101", 51_949_141, 54_314_346),
    ):
        assert (parameters(name), parameters(name, method="outputs")) == (without, with_auxiliary)


def caffe_upscore(x, side, kernel):
    """Caffe's Deconvolution of stride side / 2; without a kernel by the fixed bilinear one of each class."""
    from tests.models.parity import torch

    channels = x.shape[1]
    if kernel is None:
        factor = (side + 1) // 2
        centre = factor - 1 if side % 2 else factor - 0.5
        line = 1 - np.abs(np.arange(side) - centre) / factor  # surgery.py, upsample_filt
        weight = np.zeros((channels, channels, side, side), np.float32)
        weight[range(channels), range(channels)] = line[:, None] * line
    else:
        weight = np.asarray(kernel)[::-1, ::-1].transpose(2, 3, 0, 1).copy()  # PyTorch's is flipped
        assert weight.shape == (channels, channels, side, side)
    return torch.nn.functional.conv_transpose2d(x, torch.from_numpy(weight), stride=side // 2)


def released(params, images, stride, scales=(1.0, 1.0)):
    """voc-fcn32s, 16s and 8s as their prototxt has them, layer by layer."""
    from tests.models.parity import to_torch, torch

    functions = torch.nn.functional
    backbone, head = params["backbone"], params["head"]

    def conv(x, layer, padding=0):
        kernel, bias = (torch.from_numpy(np.array(layer[leaf])) for leaf in ("kernel", "bias"))
        return functions.conv2d(x, kernel.permute(3, 2, 0, 1), bias, padding=padding)

    def upscore(x, side, name):
        return caffe_upscore(x, side, head[name]["kernel"] if name in head else None)

    x, pools = to_torch(np.asarray(images)), {}
    for stage, layers in enumerate((2, 2, 3, 3, 3), 1):
        for layer in range(1, layers + 1):
            padding = 100 if (stage, layer) == (1, 1) else 1
            x = functions.relu(conv(x, backbone[f"conv{stage}_{layer}"], padding))
        x = pools[stage] = functions.max_pool2d(x, 2, 2, ceil_mode=True)
    x = functions.relu(conv(functions.relu(conv(x, head["fc6"])), head["fc7"]))
    score, (rows, columns) = conv(x, head["score_final"]), images.shape[1:3]
    if stride < 32:
        up = upscore(score, 4, "upscore_final")
        skip = conv(scales[0] * pools[4], head["score_pool4"])[:, :, 5 : 5 + up.shape[2], 5 : 5 + up.shape[3]]
        score = up + skip
    if stride < 16:
        up = upscore(score, 4, "upscore_pool4")
        skip = conv(scales[1] * pools[3], head["score_pool3"])[:, :, 9 : 9 + up.shape[2], 9 : 9 + up.shape[3]]
        score = up + skip
    crop = {32: 19, 16: 27, 8: 31}[stride]
    up = upscore(score, 2 * stride, f"upscore{stride}")
    return up[:, :, crop : crop + rows, crop : crop + columns].numpy().transpose(0, 2, 3, 1)


@pytest.mark.parametrize(
    "name, size, fields",
    [
        ("fcn32s_vgg16", (33, 58), {}),
        ("fcn16s_vgg16", (33, 58), {}),
        ("fcn8s_vgg16", (33, 58), {}),
        ("fcn8s_vgg16", (61, 40), {"skip_scales": (0.01, 0.0001)}),
        ("fcn8s_vgg16", (61, 40), {"upsampling": "learned"}),
    ],
)
def test_logits_are_those_of_the_released_nets(name, size, fields):
    """At sizes at which every pooling rounds up somewhere."""
    from tests.models.parity import close, photo

    model, images = create_model(name, **NARROW, **fields), photo(size)
    variables = draw(shapes(name, **NARROW, **fields))
    stride = int(name[3:].partition("s")[0])
    logits = jax.jit(functools.partial(model.apply, train=False))(variables, images)
    assert logits.shape == (1, *size, 5) and logits.dtype == jnp.float32
    close(logits, released(variables["params"], images, stride, fields.get("skip_scales", (1, 1))), 1e-4)


def test_a_dot_comes_back_within_a_stride_at_every_size():
    """Convolutions that copy, so that a dot stands in the one window of each pooling that holds it: Caffe's arithmetic.

    The images are 33 to 65 high and 65 to 97 wide. The sum of FCN-8s is steepest towards its finest map's position.
    """
    heads = {name: create_model(name).head.clone(classes=1, widths=(1, 1)) for name in NAMES}
    heads["fcn8s_resnet50"] = create_model("fcn8s_resnet50").head.clone(classes=1)
    names = {name: [end for end, _, _ in head.maps] for name, head in heads.items()}
    copy = {"kernel": np.ones((1, 1, 1, 1), np.float32), "bias": np.zeros(1, np.float32)}
    layers = {"fc7": copy} | {f"score_{end}": copy for ends in names.values() for end in ends}
    layers["fc6"] = {"kernel": np.zeros((7, 7, 1, 1), np.float32), "bias": np.zeros(1, np.float32)}
    layers["fc6"]["kernel"][3, 3] = 1

    @functools.partial(quick, static_argnames="size")
    def logits(maps, size):
        return {name: head.apply({"params": layers}, maps[name], size, train=False) for name, head in heads.items()}

    for height in range(33, 66):
        size = (height, height + 32)
        dots = [(y, x) for y in (0, height // 3, height - 1) for x in (0, height // 2, height + 31)]
        maps = {name: {} for name in heads}
        for name in heads:
            zeros = 99 if "vgg" in name else 0
            for end, stride in zip(names[name], (32, 16, 8), strict=False):
                positions = [-(-(side + 2 * zeros) // stride) for side in size]
                maps[name][end] = np.zeros((len(dots), *positions, 1), np.float32)
                for number, (y, x) in enumerate(dots):
                    maps[name][end][number, (y + zeros) // stride, (x + zeros) // stride] = 1
        for name, found in logits(maps, size).items():
            stride = int(name[3:].partition("s")[0])
            for dot, brightness in zip(dots, np.asarray(found)[..., 0], strict=True):
                off = np.abs(np.subtract(np.unravel_index(brightness.argmax(), size), dot)).max()
                # A window's middle is half a stride from its ends; a ResNet's position may be the first of its part.
                assert off <= (stride / 2 if "vgg" in name else stride - 1), (name, size, dot, off)


@pytest.mark.parametrize("name", ["fcn8s_vgg16", "fcn8s_resnet50"])
def test_the_maps_lie_where_they_are_said_to(name):
    counted = endpoints(name, (97, 130), width=1 / 16)
    for end, stride, first in create_model(name).head.maps:
        assert (counted[end].stride, counted[end].first) == ((stride, stride), (first, first))


def test_maps_of_another_padding():
    counted = endpoints(Segmenter(FCNVGG("D", width=1 / 16, padding=37), SkipHead(5, vgg_maps(37))), (224, 224, 3))
    for end, stride, first in vgg_maps(37):
        assert (counted[end].stride, counted[end].first) == ((stride, stride), (first, first))


def test_a_net_that_shrinks_its_image_answers_at_the_images_size():
    shrink = 3
    backbone = FCNVGG("D", width=1 / 16, padding=1, shrink=shrink)
    small = backbone.clone(shrink=1)
    model = Segmenter(backbone, SkipHead(5, vgg_maps(1, shrink=shrink)))
    counted = endpoints(model, (108, 96, 3))
    for end, stride, first in vgg_maps(1, shrink=shrink):
        assert (counted[end].stride, counted[end].first) == ((stride, stride), (first, first))
    image = jax.random.normal(jax.random.key(0), (1, 36, 33, 3))
    variables = draw(jax.eval_shape(lambda: small.init(jax.random.key(1), image, train=False)))
    mean = image.reshape(1, 12, shrink, 11, shrink, 3).mean((2, 4))
    ends, expected = (net.apply(variables, x, train=False) for net, x in ((backbone, image), (small, mean)))
    np.testing.assert_allclose(ends["final"], expected["final"], atol=1e-5)
    logits = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), image, train=False)[0])
    assert logits.shape == (1, 36, 33, 5)


@pytest.mark.parametrize("name", ["fcn8s_vgg16", "fcn8s_resnet50", "fcn_resnet50"])
def test_logits_have_the_images_size(name):
    model = create_model(name, classes=3, width=1 / 16, dtype="bfloat16")
    for size in ((1, 1), (97, 33), (100, 375)):
        logits = jax.eval_shape(
            lambda size=size: model.init_with_output(jax.random.key(0), jnp.zeros((2, *size, 3)), train=False)[0]
        )
        assert (logits.shape, logits.dtype) == ((2, *size, 3), jnp.float32)


def test_any_backbone_whose_positions_are_known():
    """VGG without zeros around the image, whose poolings leave out what does not fill a window."""
    model = Segmenter(
        create_model("vgg11", width=1 / 16).backbone,
        SkipHead(3, (("final", 32, 15.5), ("stage5", 16, 7.5), ("stage4", 8, 3.5)), upsampling="learned"),
    )
    assert model.classes == 3
    images = jnp.zeros((1, 63, 95, 3))
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))
    assert jax.eval_shape(functools.partial(model.apply, train=False), variables, images).shape == (1, 63, 95, 3)


def test_auxiliary_heads_are_of_training_only_and_of_the_images_size():
    model = create_model("fcn_resnet50", classes=3, width=1 / 16, depth=(1, 1, 1, 1))
    images = jnp.ones((2, 33, 40, 3))
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False, method="outputs"))

    def outputs(variables, train):
        mutable = ["batch_stats"] if train else False
        rngs = {"dropout": jax.random.key(0)}
        out = model.apply(variables, images, train=train, mutable=mutable, rngs=rngs, method="outputs")
        return out[0] if train else out

    trained = jax.eval_shape(functools.partial(outputs, train=True), variables)
    assert {name: x.shape for name, x in trained.aux.items()} == {"stage4": (2, 33, 40, 3)}
    assert trained.logits.shape == (2, 33, 40, 3)
    assert jax.eval_shape(functools.partial(outputs, train=False), variables).aux == {}
    with pytest.raises(UserError, match="aux: DilatedResNet makes no endpoint 'stage6'; did you mean 'stage"):
        wrong = model.clone(aux={"stage6": model.head})
        jax.eval_shape(lambda: wrong.init(jax.random.key(0), images, train=False, method="outputs"))


@pytest.mark.parametrize(
    "head", [SkipHead(3, vgg_maps(finest=32), widths=(8, 8), dropout=0.5), FCNHead(3, norm="none", dropout=0.5)]
)
def test_dropout_is_of_training_only(head):
    ends, size = {"final": jax.random.normal(jax.random.key(0), (1, 7, 7, 16))}, (26, 26)
    variables = draw(jax.eval_shape(lambda: head.init(jax.random.key(0), ends, size, train=False)))
    plain, *dropped = (
        head.apply(variables, ends, size, train=train, rngs={"dropout": jax.random.key(key)})
        for train, key in ((False, 1), (False, 2), (True, 1), (True, 2))
    )
    np.testing.assert_array_equal(plain, dropped[0])
    assert len({float(x.sum()) for x in (plain, *dropped)}) == 3


def test_what_does_not_fit_is_named():
    head = SkipHead(3, resnet_maps(), skip_scales=(1.0,))
    ends = {name: jnp.zeros((1, n, n, 2)) for name, n in (("final", 2), ("stage4", 4), ("stage3", 8))}

    def init(head, ends, size=(64, 64)):
        return jax.eval_shape(lambda: head.init(jax.random.key(0), ends, size, train=False))

    with pytest.raises(UserError, match="skip_scales are 1, but 2 maps are skips"):
        init(head, ends)
    with pytest.raises(UserError, match="no endpoint 'stage4'; did you mean 'stage3'"):
        init(SkipHead(3, resnet_maps()), {"final": ends["final"], "stage3": ends["stage3"]})
    with pytest.raises(UserError, match=r"2 positions at -83.5 \+ 32 i do not lie in an image of 64 pixels"):
        init(SkipHead(3, (("final", 32, -83.5),)), ends)
    with pytest.raises(UserError, match="do not reach all 64 pixels of the image; set border='repeat'"):
        init(SkipHead(3, (("final", 32, 15.5),), border="zeros"), {"final": jnp.zeros((1, 1, 1, 2))})
    with pytest.raises(UserError, match=r"no transposed convolution leads from positions 0.3 \+ 32 i"):
        init(SkipHead(3, (("final", 32, 0.3),), upsampling="learned"), ends)
    with pytest.raises(UserError, match="SkipHead has no upsampling 'learnt'; did you mean 'learned'"):
        create_model("fcn8s_vgg16", upsampling="learnt")
    with pytest.raises(UserError, match="FCNVGG has five stages"):
        shapes("fcn8s_vgg16", stages=4)


@pytest.mark.parametrize("border, first, end", [("zeros", 2.5, 14), ("repeat", 3.5, 16), ("repeat", 0.0, 17)])
def test_kernels_that_are_learned_start_as_the_fixed_ones(border, first, end):
    source = (Grid(first, 8, 2), Grid(first, 8, 3))
    target = (pixels(end), pixels(end + 8))
    if border == "zeros":
        target = (Grid(3, 1, end - 4), Grid(0, 1, end))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 2, 3, 4)), jnp.float32)
    side = kernel_size(source[0], target[0])
    assert side == (15 if first == 0 else 16)
    expected, pull = jax.vjp(lambda x: upsample(x, source, target, border), x)
    (gradient,) = pull(expected)
    for channels in (np.eye(4), np.ones((1, 4))):
        kernel = jnp.asarray(bilinear_kernel(side)[..., None, None] * channels, jnp.float32)
        learned, pull = jax.vjp(lambda x, kernel=kernel: transposed_conv(x, kernel, source, target, border), x)
        np.testing.assert_allclose(learned, expected, atol=1e-6)
        np.testing.assert_allclose(pull(learned)[0], gradient, atol=1e-4)


def test_resizing_is_pytorchs():
    from tests.models.parity import close, photo, to_torch, torch

    for old, new in (((5, 7), (33, 97)), ((3, 1), (24, 5)), ((9, 8), (7, 8))):
        x = photo((*old, 2))
        theirs = torch.nn.functional.interpolate(to_torch(x), size=new, mode="bilinear", align_corners=False)
        rows, columns = (stretched(n, size) for n, size in zip(old, new, strict=True))
        ours = upsample(jnp.asarray(x), (rows, columns), (pixels(new[0]), pixels(new[1])), "repeat")
        if new[0] > old[0]:
            close(ours, theirs.numpy().transpose(0, 2, 3, 1), 1e-6)


def torchvisions(name, **fields):
    from tests.models.parity import calibrate, randomize, torchvision

    torchvision()
    from torchvision.models import segmentation

    net = randomize(getattr(segmentation, name)(weights=None, weights_backbone=None, **fields))
    net.forward_all, net.forward = net.forward, lambda x: net.forward_all(x)["out"]
    return calibrate(net, (33, 33))


@pytest.mark.parametrize("name", ["fcn_resnet50", pytest.param("fcn_resnet101", marks=slow)])
def test_equals_torchvisions(name):
    """In evaluation at two sizes, and in training with the auxiliary head: within 1e-4, of values up to 20.

    In float64, statistics and all: these nets enlarge rounding errors a thousandfold, and in float32 their logits
    differ by some 1e-4 of the largest value.
    """
    from jaxcnn.models.pretrained import from_torch
    from tests.models.parity import photo, to_torch, torch

    net = torchvisions(name, aux_loss=True, num_classes=5).double()
    for module in net.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    model = create_model(name, classes=5, dropout=0.0, dtype="float64")
    variables = jax.tree.map(np.float64, from_torch(name, net.state_dict(), classes=5))

    def check(ours, theirs):
        theirs = theirs.numpy().transpose(0, 2, 3, 1)
        assert ours.shape == theirs.shape and theirs.std() > 0.1
        np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=0)

    with torch.no_grad(), jax.enable_x64(True):
        for size in ((33, 49), (58, 41)):
            images = photo(size, batch=2).astype(np.float64)
            check(model.apply(variables, jnp.asarray(images), train=False), net(to_torch(images)))
        theirs = net.train().forward_all(to_torch(images))
        out, _ = model.apply(variables, jnp.asarray(images), train=True, mutable=["batch_stats"], method="outputs")
        assert out.aux.keys() == {"stage4"}
        check(out.logits, theirs["out"])
        check(out.aux["stage4"], theirs["aux"])


def state(variables):
    return jax.eval_shape(lambda: create_state(variables, optax.identity(), False, None, {}, jax.random.key(0)))


def test_each_net_starts_from_the_coarser_one_and_from_vgg16():
    """By what --init-from does: the paths agree, and fc6 and fc7 fit their convolutions."""
    states = {name: state(shapes(name, classes=21)) for name in NAMES}
    states["vgg16"] = state(shapes("vgg16", 224))
    trunk = 2 * 13
    for name, source, exclude, taken in (
        ("fcn32s_vgg16", "vgg16", ("params/head/score_*", "params/head/fc8/*"), trunk + 4),
        ("fcn16s_vgg16", "fcn32s_vgg16", ("params/head/score_pool4/*",), trunk + 6),
        ("fcn8s_vgg16", "fcn16s_vgg16", ("params/head/score_pool3/*",), trunk + 8),
        ("fcn8s_vgg16", "vgg16", ("params/head/score_*", "params/head/fc8/*"), trunk + 4),
    ):
        assert len(chosen(states[name], states[source], InitFrom(run="there", exclude=exclude))) == taken
    with pytest.raises(UserError, match=r"fc6/kernel: \(7, 7, 512, 4096\) there, \(25088, 4096\) here"):
        chosen(states["vgg16"], states["fcn32s_vgg16"], InitFrom(run="there", include=("params/head/fc6/*",)))


def test_the_weights_of_vgg_make_the_logits_of_vgg():
    """A map of 7x7 has one window, where fc6, fc7 and fc8 as convolutions score what VGG's head does."""
    vgg, fcn = create_model("vgg16", **NARROW), create_model("fcn32s_vgg16", **NARROW)
    weights, start = draw(shapes("vgg16", 64, **NARROW)), draw(shapes("fcn32s_vgg16", **NARROW), seed=1)
    variables, fresh = from_vgg16(start, weights)
    assert fresh == ["params/head/score_final/bias", "params/head/score_final/kernel"]
    for path, array in flatten_dict(variables["params"]["backbone"], sep="/").items():
        np.testing.assert_array_equal(array, flatten_dict(weights["params"]["backbone"], sep="/")[path])
    score = weights["params"]["head"]["fc8"]
    variables["params"]["head"]["score_final"] = {"kernel": score["kernel"][None, None], "bias": score["bias"]}
    final = jax.random.normal(jax.random.key(0), (2, 7, 7, 16))
    logits = fcn.apply(variables, {"final": final}, (26, 26), train=False, method="segment")
    expected = vgg.apply(weights, final, train=False, method="classify")
    # The window's middle lies at 12.5: the pixel beside it sees it with these weights.
    np.testing.assert_allclose(logits[:, 12, 13] / (1 - 0.5 / 32) ** 2, expected, rtol=1e-4, atol=1e-4)


def test_weights_of_another_vgg_are_refused():
    start, weights = shapes("fcn32s_vgg16", **NARROW), shapes("vgg16", 64, **NARROW)
    flat = flatten_dict(weights, sep="/")
    trunk = {path: leaf for path, leaf in flat.items() if "/backbone/" in path}
    variables, fresh = jax.tree.map(np.zeros_like, draw(start)), []
    _, fresh = from_vgg16(variables, unflatten_dict(jax.tree.map(lambda x: np.ones(x.shape), trunk), sep="/"))
    assert len(fresh) == 6  # fc6, fc7 and the score
    with pytest.raises(UserError, match="params/backbone/conv5_3/kernel: not in VGG's weights"):
        from_vgg16(
            start,
            {"params": {"head": weights["params"]["head"]}}
            | unflatten_dict({path: leaf for path, leaf in trunk.items() if "conv5_3/kernel" not in path}, sep="/"),
        )
    with pytest.raises(UserError, match="params/backbone/conv5_4/bias: not in the FCN"):
        from_vgg16(start, shapes("vgg19", 64, **NARROW))
    with pytest.raises(UserError, match=r"conv1_1/bias: \(4,\) in VGG, \(2,\) in the FCN"):
        from_vgg16(start, shapes("vgg16", 64, width=1 / 16, classes=5))


def test_dilation_takes_the_place_of_strides():
    def strides(backbone):
        counted = endpoints(Segmenter(backbone, FCNHead(2)), (64, 64, 3))
        return {name: end.stride[0] for name, end in counted.items()}

    small = {"depth": (1, 1, 1, 1), "width": 1 / 16}
    sizes = {stride: strides(DilatedResNet(**small, output_stride=stride)) for stride in (8, 16, 32)}
    assert [sizes[stride]["final"] for stride in (8, 16, 32)] == [8, 16, 32]
    assert sizes[16]["stage4"] == 16
    assert strides(ResNet(**small)) == sizes[32]
    with pytest.raises(UserError, match="with a stem of stride 4 and four stages"):
        strides(DilatedResNet(depth=(1, 1)))


def test_a_summary_shows_where_the_upsampling_is():
    summary = summarize(create_model("fcn8s_vgg16", upsampling="learned", classes=3), (97, 97, 3))
    up = {layer.name: layer for layer in summary.layers if layer.kind == "deconv"}
    assert list(up) == ["head/upscore_final", "head/upscore_pool4", "head/upscore8"]
    n = -(-(97 + 198) // 32) - 6
    assert up["head/upscore_final"].multiply_adds == (n * 4) ** 2 * 9
    assert summary.layers[-1].output == (97, 97, 3)
    fixed = summarize(create_model("fcn8s_vgg16", classes=3), (97, 97, 3))
    assert sum(layer.kind == "resize" for layer in fixed.layers) == 3
    assert fixed.multiply_adds == summary.multiply_adds - sum(layer.multiply_adds for layer in up.values())
