"""Every model: counts, paths, gradients, precision, composition. Large nets are checked on shapes, or made narrow."""

import csv
import fnmatch
import functools
import hashlib
import json
import math
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxcnn
from jaxcnn.errors import UserError
from jaxcnn.models import FC, GAP, MODELS, VGG, Classifier, Segmenter, create_model, list_models
from jaxcnn.models.localizer import Localizer
from jaxcnn.summary.summary import summarize
from tests.compilation import quick

HERE = pathlib.Path(__file__).parent
TABLE = {row["name"]: row for row in csv.DictReader((HERE / "architectures.csv").open())}
PATHS = json.loads((HERE / "parameter_paths.json").read_text())


def input_shape(name):
    return tuple(int(n) for n in TABLE[name]["input"].split("x"))


def shapes(name, **fields):
    model = create_model(name, **fields)
    images = jnp.zeros((2, *input_shape(name)))
    return jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))


def size(tree):
    return sum(math.prod(x.shape) for x in jax.tree.leaves(tree))


FC_2X2 = FC(classes=7, widths=(32, 32), names=("fc6", "fc7", "fc8"), grid=(2, 2), dropout=0.5)
SHALLOW = {"depth": (1, 1), "width": 0.25, "classes": 7}
INCEPTION_V3 = ("Mixed_5b", "Mixed_6a", "Mixed_6e", "Mixed_7a", "Mixed_7b")
INCEPTION_V4 = ("Mixed_3a", "Mixed_4a", "Mixed_5a", "Mixed_5b", "Mixed_6a", "Mixed_6b", "Mixed_7a", "Mixed_7b")
# Forms that run in a test: narrow and shallow, at sizes where no map is smaller than a kernel (there XLA's convolution
# on the CPU is very slow). The first pattern that matches a name counts.
SMALL = {
    "linear_640x480": ({}, (16, 12, 1)),
    "fcn*_vgg16*": ({"width": 0.03125, "variant": "A", "classes": 7}, (9, 12, 3)),
    "lecture_flowers": ({}, (36, 36, 3)),
    "vgg*": ({"width": 0.0625, "head": FC_2X2}, (64, 64, 3)),
    "alexnet_owt": ({"width": 0.125, "head": FC_2X2.clone(dropout_first=True)}, (75, 75, 3)),
    "alexnet*": ({"width": 0.125, "head": FC_2X2}, (75, 75, 3)),
    "zfnet*": ({"width": 0.125, "head": FC_2X2}, (75, 75, 3)),
    "googlenet*": ({"width": 0.125, "widths": (32,), "modules": ("3a", "4a", "4d"), "classes": 7}, (96, 96, 3)),
    "inception_v3": ({"width": 0.125, "modules": INCEPTION_V3, "classes": 7}, (139, 139, 3)),
    "inception_v4": ({"width": 0.125, "modules": INCEPTION_V4, "classes": 7}, (139, 139, 3)),
    "resnet50_dcn": ({**SHALLOW, "stem": "3x3", "deformable": (3,)}, (16, 16, 3)),
    "resnet50_dcnv2": ({**SHALLOW, "stem": "3x3", "deformable": (2, 3)}, (16, 16, 3)),
    "*_cifar": ({"depth": (1, 1), "classes": 7}, (16, 16, 3)),
    "senet154": ({**SHALLOW, "groups": 8}, (64, 64, 3)),
    "*res*net*": (SHALLOW, (64, 64, 3)),
    "resnext*": (SHALLOW, (64, 64, 3)),
    "plain*": (SHALLOW, (64, 64, 3)),
    "densenet*": ({"depth": (2, 2), "growth": 8, "stem_width": 16, "classes": 7}, (64, 64, 3)),
    "yolo_v1_pretraining": ({"width": 0.03125, "classes": 7}, (64, 64, 3)),
    "efficientnet*": ({"width": 0.25, "depth": 0.1, "dropout": 0.2, "classes": 7}, (96, 96, 3)),
}


def small(name, **fields):
    """The small form of a model and its input."""
    for pattern, (form, shape) in SMALL.items():
        if fnmatch.fnmatchcase(name, pattern):
            return create_model(name, **form, **fields), shape
    return create_model(name, **fields), input_shape(name)


# Nets that differ in depth or width only, such as ResNet-50 and 101, have one small form, which is tested once. The
# layers of these are in vgg16_bn, resnet50 and fcn8s_vgg16; the dilated ones are compared with torchvision's.
# Detectors have no logits: tests/models/test_yolo.py and test_faster_rcnn.py are theirs.
WITHIN_OTHERS = {name for name in MODELS if name.startswith("fcn")} - {"fcn8s_vgg16"}
# These have more, or wider, layers of a kind that another one has.
WITHIN_OTHERS |= {"vgg13", "vgg19", "vgg11_bn", "vgg13_bn", "vgg19_bn", "densenet190_bc_k40_cifar", "linear_640x480"}
WITHIN_OTHERS |= {name for name, model in MODELS.items() if not isinstance(model, Classifier | Segmenter)}
DISTINCT = list({small(name): name for name in reversed(MODELS) if name not in WITHIN_OTHERS}.values())[::-1]


@functools.cache
def ran(name):
    """The small model, its variables, images and labels: of each image, or of each pixel."""
    model, shape = small(name)
    images = jax.random.normal(jax.random.key(1), (4, *shape))
    places = (4, *shape[:2]) if isinstance(model, Segmenter) else (4,)
    labels = jnp.arange(math.prod(places)).reshape(places) % model.classes
    return model, random_variables(model, images), images, labels


def random_variables(model, images):
    """Variables of the right shapes drawn by numpy: compiling 40 random draws would take longer than the test."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        role = path[-1].key
        if role in ("scale", "var"):
            return jnp.ones(leaf.shape)
        scale = np.sqrt(2 / math.prod(leaf.shape[:-1])) if role == "kernel" else 0.1
        return jnp.asarray(rng.normal(0, scale, leaf.shape), jnp.float32)

    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False, method="outputs"))
    return jax.tree_util.tree_map_with_path(draw, shapes)


@pytest.mark.parametrize("name", MODELS)
def test_parameters_equal_the_table_and_their_paths_are_frozen(name):
    variables = shapes(name)
    assert size(variables["params"]) == int(TABLE[name]["parameters"])
    assert create_model(name).classes == int(TABLE[name]["classes"])
    assert frozen(variables) == PATHS[name]


def frozen(variables):
    """{path: shape}; of a deep net, whose list would be long, the sha256 of its JSON."""
    flat, _ = jax.tree_util.tree_flatten_with_path(variables)
    paths = {jax.tree_util.keystr(path, simple=True, separator="/"): list(x.shape) for path, x in flat}
    return paths if len(paths) <= 130 else hashlib.sha256(json.dumps(paths, sort_keys=True).encode()).hexdigest()


@pytest.mark.parametrize("name", [name for name in MODELS if not name.startswith(("linear", "mlp", "lenet5_1998"))])
def test_the_smallest_input_that_works_is_named(name):
    """A wrong size is answered with one that works, or a single pixel is enough.

    With one block a stage: more of them take the size as it comes, and tracing deep nets three times takes a minute.
    """
    depth = getattr(getattr(MODELS[name], "backbone", None), "depth", None)
    fields = {} if depth is None else {"depth": 0.1 if isinstance(depth, float) else (1,) * len(depth)}
    model, shape = create_model(name, **fields), input_shape(name)
    features = lambda side: jax.eval_shape(  # noqa: E731
        lambda: model.init_with_output(
            jax.random.key(0), jnp.zeros((1, side, side, shape[2])), train=False, method="features"
        )[0]
    )
    try:
        ends = features(1)
    except UserError as error:
        smallest = int(re.search(r"needs (\d+)x\1", str(error))[1])
        ends = features(smallest)
        with pytest.raises(UserError, match=f"needs {smallest}x{smallest}"):
            features(smallest - 1)
    assert min(ends["final"].shape) > 0  # no map has vanished


@pytest.mark.parametrize(
    "name, layers",
    [
        ("lecture_simple", [80, 1168, 2320, 16448, 650]),
        ("lecture_flowers", [448, 4640, 18496, 3965056, 645]),
        ("lenet5_1998", [156, 12, 1516, 32, 48120, 10164]),
        ("mlp", [1607680, 2098176, 10250]),
    ],
)
def test_layers_have_the_counts_that_the_sources_print(name, layers):
    params = shapes(name)["params"]
    counts = [size(layer) for part in ("backbone", "head") for layer in params.get(part, {}).values()]
    assert sorted(counts) == sorted(layers)


def test_batch_norm_study_net_with_and_without():
    variables = shapes("lecture_batchnorm")
    assert size(variables["batch_stats"]) == 896
    assert size(variables["params"]) + 896 == 511690
    plain = shapes("lecture_batchnorm", norm="none")
    assert "batch_stats" not in plain and size(plain["params"]) == 510794 - 896


def test_batch_norm_study_net_in_other_widths_and_initialisations():
    narrow = shapes("lecture_batchnorm", width=0.25)["params"]["backbone"]
    assert [narrow[f"conv{layer}"]["kernel"].shape[-1] for layer in range(1, 7)] == [8, 16, 32, 8, 16, 32]
    model = create_model("lecture_batchnorm", kernel_init="normal_0.01")
    kernel = model.init(jax.random.key(0), jnp.zeros((1, 10, 10, 1)), train=False)["params"]["backbone"]["conv6"]
    assert np.std(kernel["kernel"]) == pytest.approx(0.01, rel=0.02)


@pytest.mark.parametrize("name", DISTINCT)
def test_forward_and_composition(name):
    model, variables, images, labels = ran(name)
    apply = functools.partial(model.apply, train=False)

    @quick
    def both(variables, images):
        return apply(variables, images), apply(variables, images, method="features")

    logits, ends = both(variables, images)
    assert logits.shape == (*labels.shape, model.classes) and logits.dtype == jnp.float32
    assert np.isfinite(logits).all() and np.std(logits, axis=0).max() > 0  # it depends on the input
    expected = summarize(model, images.shape[1:]).endpoints
    assert {end: x.shape for end, x in ends.items()} == {end: (4, *place.shape) for end, place in expected.items()}
    if isinstance(model, Segmenter):
        again = apply(variables, ends, images.shape[1:3], method="segment")
    else:
        again = apply(variables, ends["final"], method="classify")
    np.testing.assert_allclose(again, logits, rtol=1e-5, atol=1e-5)  # compiled apart, so not to the bit


@pytest.mark.parametrize("name", DISTINCT)
def test_every_parameter_gets_a_gradient_and_a_step_lowers_the_loss_by_what_it_says(name):
    model, variables, images, labels = ran(name)
    stats = {key: value for key, value in variables.items() if key != "params"}

    def loss(params, stats):
        outputs, stats = model.apply(
            {"params": params, **stats},
            images,
            train=True,
            rngs={"dropout": jax.random.key(2)},
            mutable=list(stats),
            method="outputs",
        )
        heads = (outputs.logits, *outputs.aux.values())
        return sum(optax.softmax_cross_entropy_with_integer_labels(x, labels).mean() for x in heads), stats

    grad = quick(jax.value_and_grad(loss, has_aux=True))
    (before, new_stats), gradients = grad(variables["params"], stats)
    for path, gradient in jax.tree_util.tree_flatten_with_path(gradients)[0]:
        assert np.abs(gradient).max() > 0, jax.tree_util.keystr(path)
    for old, new in zip(jax.tree.leaves(stats), jax.tree.leaves(new_stats), strict=True):
        assert not np.array_equal(old, new)
    # So short a step that the gradient tells what it does: it takes a thousandth of the loss.
    rate = 1e-3 * before / sum(float(jnp.sum(jnp.square(g))) for g in jax.tree.leaves(gradients))
    stepped = jax.tree.map(lambda weight, gradient: weight - rate * gradient, variables["params"], gradients)
    (after, _), _ = grad(stepped, stats)
    assert float((before - after) / before) == pytest.approx(1e-3, rel=0.25)


@pytest.mark.parametrize("name", DISTINCT)
def test_bfloat16_computes_in_bfloat16_and_keeps_float32_where_it_must(name):
    model, shape = small(name, dtype="bfloat16")
    images = jnp.ones((2, *shape))

    def both(module, images):  # as __call__ does it, which test_forward_and_composition shows
        ends = module.features(images, train=False)
        if isinstance(model, Segmenter):
            return ends, module.segment(ends, images.shape[1:3], train=False)
        return ends, module.classify(ends["final"], train=False)

    run = functools.partial(model.init_with_output, jax.random.key(0), images, method=both)
    (ends, logits), variables = jax.eval_shape(run)
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert logits.dtype == jnp.float32
    if not name.startswith(("linear", "mlp")):
        assert {end.dtype for end in ends.values()} == {jnp.dtype("bfloat16")}


def test_vgg_stages_and_grid_at_the_papers_size():
    model = create_model("vgg16")
    images = jnp.zeros((1, 224, 224, 3))
    ends = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), images, train=False, method="features")[0])
    sizes = {name: end.shape[1:] for name, end in ends.items()}
    assert sizes == {
        "stage1": (224, 224, 64),
        "stage2": (112, 112, 128),
        "stage3": (56, 56, 256),
        "stage4": (28, 28, 512),
        "stage5": (14, 14, 512),
        "final": (7, 7, 512),
    }


def test_fc_heads_take_other_sizes_with_the_same_parameters():
    model, variables, _, _ = ran("vgg11")
    for height, width in ((65, 97), (32, 50)):
        images = jnp.ones((1, height, width, 3))
        logits = jax.eval_shape(functools.partial(model.apply, train=False), variables, images)
        assert logits.shape == (1, 7)


def test_gap_head_has_few_parameters_and_dropout_only_in_training():
    model = create_model("vgg11_bn", width=0.125, stages=2, head=GAP(classes=3, dropout=0.5))
    images = jax.random.normal(jax.random.key(0), (2, 16, 16, 3))
    variables = model.init(jax.random.key(0), images, train=False)
    assert size(variables["params"]["head"]) == (16 + 1) * 3
    np.testing.assert_array_equal(*(model.apply(variables, images, train=False) for _ in range(2)))
    one, other = (
        model.apply(variables, images, train=True, rngs={"dropout": jax.random.key(k)}, mutable=["batch_stats"])[0]
        for k in range(2)
    )
    assert not np.array_equal(one, other)


def test_auxiliary_heads_appear_in_training_only():
    model = create_model("vgg11", width=0.125, stages=3, head=GAP(classes=3), aux={"stage2": GAP(classes=3)})
    images = jnp.ones((2, 16, 16, 3))
    variables = model.init(jax.random.key(0), images, train=True, method="outputs")
    outputs = model.apply(variables, images, train=True, method="outputs")
    assert outputs.aux["stage2"].shape == (2, 3) and "aux_stage2" in variables["params"]
    assert model.apply(variables, images, train=False, method="outputs").aux == {}


def test_names_and_fields_that_are_wrong_are_answered_with_the_nearest():
    with pytest.raises(UserError, match="did you mean 'vgg16'"):
        create_model("vg16")
    with pytest.raises(UserError, match="did you mean 'dropout'"):
        create_model("vgg16", dropuot=0.1)
    with pytest.raises(UserError, match="LeNet has no activation 'rleu'; did you mean 'relu'"):
        create_model("lenet5", activation="rleu")
    with pytest.raises(UserError, match="VGG has no kernel_init 'he_fan_ot'; did you mean 'he_fan_out'"):
        create_model("vgg16", kernel_init="he_fan_ot")
    with pytest.raises(UserError, match=r"no kernel_init 'he_normal'; write 'he_fan_out' .* or 'he_fan_in_truncated'"):
        create_model("vgg16", kernel_init="he_normal")
    with pytest.raises(UserError, match="ResNet has no stem '9x9'; there is"):
        create_model("resnet50", stem="9x9")
    with pytest.raises(UserError, match="FC has no dtype 'bf16'; did you mean 'bfloat16'"):
        Classifier(VGG("A"), FC(classes=3, dtype="bf16"))
    assert list_models("vgg1?") == ["vgg11", "vgg13", "vgg16", "vgg19"]
    assert jaxcnn.list_models() == sorted(MODELS)


@pytest.mark.parametrize(
    "name, shape", [("vgg16", (31, 40, 3)), ("lenet5", (15, 32, 1)), ("lecture_simple", (17, 17, 1))]
)
def test_an_input_that_is_too_small_is_named(name, shape):
    with pytest.raises(UserError, match="too small"):
        jax.eval_shape(lambda: create_model(name).init(jax.random.key(0), jnp.zeros((1, *shape)), train=False))


def test_a_head_with_more_widths_than_names_is_refused():
    with pytest.raises(UserError, match="layer names"):
        create_model("mlp", widths=(3, 4, 5)).init(jax.random.key(0), jnp.zeros((1, 4, 4, 1)), train=False)


def test_the_1998_net_refuses_other_sizes_and_class_counts():
    with pytest.raises(UserError, match="32x32"):
        create_model("lenet5_1998").init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)), train=False)
    with pytest.raises(UserError, match="bitmap"):
        create_model("lenet5_1998", classes=5).init(jax.random.key(0), jnp.zeros((1, 32, 32, 1)), train=False)


def test_every_model_is_hashable_also_after_a_change():
    """Studies look their arms up, and jit its static arguments."""
    for name in list_models():
        model = create_model(name, classes=3)
        assert hash(model) == hash(create_model(name, classes=3)), name
    assert isinstance(hash(Localizer(model.backbone, GAP(3), aux={})), int)
