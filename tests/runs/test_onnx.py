"""ONNX: onnxruntime computes what JAX computes, for nets of every family and for each primitive."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict
from jax import export

import jaxcnn as jc
from jaxcnn import config
from jaxcnn.errors import UserError
from jaxcnn.models.catalogue import CATALOGUE
from jaxcnn.models.pretrained import leaves
from jaxcnn.runs.export import export_run
from jaxcnn.runs.prediction import load_net
from tests.compilation import quick
from tests.slow import slow
from tests.tiny_runs import TINY, finish

onnx = pytest.importorskip("onnx", reason="onnx is not installed (pip install -e '.[test]'): not run")
onnxruntime = pytest.importorskip(
    "onnxruntime", reason="onnxruntime is not installed (pip install -e '.[test]'): not run"
)

from jaxcnn.runs.onnx_graph import onnx_model  # noqa: E402

GRID = jc.FC(classes=7, widths=(8, 8), names=("fc6", "fc7", "fc8"), grid=(7, 7))
SHORT = {"depth": (1, 1, 1, 1)}
NETS = {
    "lenet5": ("lenet5", 32, {}),  # average pooling, tanh
    "lenet5_1998": ("lenet5_1998", 32, {}),  # a table of connections, radial basis functions
    "vgg11": ("vgg11", 64, {"head": GRID}),  # fully connected on a grid that is averaged
    # groups, local response normalisation, overlapping pooling
    "alexnet": ("alexnet", 67, {"head": jc.FC(classes=7, widths=(8, 8), names=("fc6", "fc7", "fc8"))}),
    "resnet18": ("resnet18", 32, SHORT),
    "googlenet": ("googlenet", 32, {"width": 0.25, "modules": ("3a", "4a", "5a"), "aux": {}}),  # ceil mode
    "densenet": ("densenet40_k12_cifar", 16, {"depth": (2, 2, 2)}),
    # depthwise, "same" padding, squeeze and excitation; one stage has a second block, which is added to what it reads
    "efficientnet_b0": ("efficientnet_b0", 32, {"width": 0.25, "depth": 0.3}),
    "se_resnet50": ("se_resnet50", 32, SHORT),
    "fcn8s": ("fcn8s_resnet50", 32, SHORT),  # resizing
    "fcn8s-learned": ("fcn8s_resnet50", 32, {**SHORT, "upsampling": "learned"}),  # transposed convolutions
    "inception_v3": ("inception_v3", 80, {}),  # averages that do not count the padding
}


def run(model, *arrays):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, dict(zip([each.name for each in session.get_inputs()], arrays, strict=True)))


def drawn(path, shape, rng):
    if path.endswith("/kernel"):
        return rng.normal(size=shape, scale=(2 / np.prod(shape[:-1])) ** 0.5)
    low, high = {"scale": (0.2, 0.6), "var": (0.5, 1.5)}.get(path.rpartition("/")[2], (-0.1, 0.1))
    return rng.uniform(low, high, shape)


def net(name, side, fields):
    """(logits of images, the images' shape), with weights that leave the logits at about 1."""
    model = jc.create_model(name, **{key: value for key, value in fields.items() if key != "head"})
    model = model.clone(head=fields["head"]) if "head" in fields else model
    shape = (*((side, side) if side else CATALOGUE[name].input_shape[:2]), CATALOGUE[name].input_shape[2])
    rng = np.random.default_rng(0)
    arrays = {path: drawn(path, size, rng).astype(np.float32) for path, size in leaves(model, shape).items()}
    variables = unflatten_dict(arrays, sep="/")
    return lambda images: model.apply(variables, images, train=False), shape


@pytest.mark.parametrize("case", [pytest.param(case, marks=slow if case == "inception_v3" else ()) for case in NETS])
def test_logits_are_jaxs_for_any_number_of_images(case):
    function, shape = net(*NETS[case])
    (batch,) = export.symbolic_shape("b")
    model = onnx_model(function, jax.ShapeDtypeStruct((batch, *shape), jnp.float32))
    images = np.random.default_rng(1).normal(size=(2, *shape)).astype(np.float32)
    expected = np.asarray(quick(function)(images))
    within = min(1e-4, 1e-3 * expected.std())
    assert within > 1e-5
    (found,) = run(model, images)
    np.testing.assert_allclose(found, expected, atol=within, rtol=0)
    (single,) = run(model, images[:1])
    np.testing.assert_allclose(single, expected[:1], atol=within, rtol=0)


WEIGHTS = np.random.default_rng(2).normal(size=(3, 3, 2, 4)).astype(np.float32)
FUNCTIONS = {
    "arithmetic": lambda x: jnp.exp(x) - jnp.log(jnp.abs(x) + 1) * jnp.sign(x) / jnp.maximum(x, 0.5) ** 2 + x**3,
    "functions": lambda x: jax.scipy.special.erf(x) + jax.nn.gelu(x) + jax.lax.rsqrt(x * x + 1) + jax.nn.sigmoid(-x),
    "choices": lambda x: jnp.where((x > 0) & ~(x >= 1) | (x != x), x, jnp.clip(x, -0.5, 0.25)),
    "broadcast": lambda x: jnp.concatenate([jnp.broadcast_to(x.mean((1, 2), keepdims=True), x.shape), x], -1),
    "sums": lambda x: (
        jax.nn.softmax(x) + x.max(-1, keepdims=True) - x.min((1, 2), keepdims=True) * x.prod(2)[:, :, None]
    ),
    "places": lambda x: jnp.argmax(x, -1).astype(jnp.uint8),
    "pieces": lambda x: jnp.stack([jnp.flip(x, 1)[:, :, 1::2], x[:, :, :3]], 1),
    "halves": lambda x: jnp.concatenate(jnp.split(x, 2, axis=3)[::-1], axis=3),
    "taken": lambda x: jnp.take(x, np.array([[3, 0], [1, 1]]), axis=2),
    "cropped": lambda x: jax.lax.pad(x, 2.0, [(0, 0, 0), (-1, 2, 0), (1, -2, 0), (0, 0, 0)]),
    "edges": lambda x: jnp.pad(x, ((0, 0), (1, 2), (0, 0), (0, 0)), mode="edge"),
    "product": lambda x: jnp.einsum("bhwc,bvwc->bhv", x, x + 1),
    "mixed": lambda x: jnp.einsum("hk,bhwc->bkwc", WEIGHTS[0, 0, 0, 0] * np.ones((5, 2), np.float32), x),
    "pooled": lambda x: jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 2, 1), (1, 2, 1, 1), "SAME"),
    "summed": lambda x: jax.lax.reduce_window(x, 0.0, jax.lax.add, (1, 3, 2, 1), (1, 2, 1, 1), "SAME"),
    "last": lambda x: jax.lax.slice_in_dim(x, x.shape[0] - 1, None),
    "depthwise": lambda x: convolved(x, WEIGHTS[..., :1, :], padding=[(1, 0), (0, 2)], feature_group_count=2),
    "dilated": lambda x: convolved(x, WEIGHTS, padding=[(2, -1), (1, 1)], rhs_dilation=(1, 2)),
    "transposed": lambda x: convolved(x, WEIGHTS, padding=[(3, 1), (0, 2)], lhs_dilation=(2, 3)),
}


def convolved(x, weights, **options):
    return jax.lax.conv_general_dilated(x, weights, (1, 1), dimension_numbers=("NHWC", "HWIO", "NHWC"), **options)


@pytest.mark.parametrize("name", [*FUNCTIONS])
def test_primitives_are_what_jax_says(name):
    (batch,) = export.symbolic_shape("b")
    images = np.random.default_rng(3).normal(size=(3, 5, 6, 2)).astype(np.float32)
    model = onnx_model(FUNCTIONS[name], jax.ShapeDtypeStruct((batch, *images.shape[1:]), jnp.float32))
    (found,), expected = run(model, images), np.asarray(FUNCTIONS[name](images).astype(jnp.float32))
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-5)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx") / "run"
    finish(TINY, "--workdir", folder, "--duration", "10steps")
    return folder


def test_a_runs_graph_takes_prepared_images_and_has_its_notes(finished, tmp_path):
    folder, file = finished, tmp_path / "net.onnx"
    out = finish("export", folder, "--out", file, module="jaxcnn").stdout
    assert f"{file}: a program" in out.replace("\n", " ") and "notes in" not in out
    net = load_net(folder)
    images = np.random.default_rng(0).integers(0, 256, (5, *net.data.image_shape), np.uint8)
    model = onnx.load(file)
    np.testing.assert_allclose(run(model, images)[0], net.predict(images), atol=1e-6)
    (given,), (answer,) = model.graph.input, model.graph.output
    assert (given.name, answer.name) == ("images", "output")
    assert given.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert given.type.tensor_type.shape.dim[0].dim_param == answer.type.tensor_type.shape.dim[0].dim_param == "batch"
    notes = json.loads({each.key: each.value for each in model.metadata_props}["jaxcnn"])
    assert notes["classes"] == list(net.classes) and notes["normalize"] == config.encode(net.data.normalize)
    export_run(folder, file, "onnx", batch=2, averaged=True)
    (found,) = run(onnx.load(file), images[:2])
    np.testing.assert_allclose(found, load_net(folder, averaged=True).predict(images[:2]), atol=1e-6)
    assert onnx.load(file).graph.input[0].type.tensor_type.shape.dim[0].dim_value == 2


def test_what_has_no_operator_is_told_with_its_layer():
    model = jc.create_model("resnet50_dcn", depth=(1, 1, 1, 1))
    shape = (1, 64, 64, 3)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros(shape), train=False))
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), variables)
    function = lambda images: model.apply(variables, images, train=False)  # noqa: E731
    with pytest.raises(UserError, match=r"no ONNX operator for JAX's \w+ in backbone/layer\d_0/conv2"):
        onnx_model(function, jax.ShapeDtypeStruct(shape, jnp.float32))


def test_bfloat16_is_computed_as_float32():
    weights = WEIGHTS.astype(jnp.bfloat16)
    function = lambda x: convolved(x.astype(jnp.bfloat16), weights, padding="SAME")  # noqa: E731
    images = np.random.default_rng(3).normal(size=(1, 5, 6, 2)).astype(np.float32)
    (found,) = run(onnx_model(function, jax.ShapeDtypeStruct(images.shape, jnp.float32)), images)
    expected = convolved(images, weights.astype(np.float32), padding="SAME")
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_without_the_package_it_is_told(finished, tmp_path, monkeypatch):
    for module in ("jaxcnn.runs.onnx_graph", "jaxcnn.runs.onnx_primitives"):
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match="pip install onnx"):
        export_run(finished, tmp_path / "net.onnx", "onnx")
    assert not [*tmp_path.iterdir()]
