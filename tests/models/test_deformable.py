"""Deformable convolution against loops in numpy, ONNX's reference and finite differences; the ResNets that have it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.flatten_util import ravel_pytree

from jaxcnn.errors import UserError
from jaxcnn.models import create_model
from jaxcnn.models.deformable import DeformConv, deform_conv

# (height, width), kernel, stride, padding, dilation, offset groups
GEOMETRIES = [
    ((5, 7), 3, 1, 1, 1, 1),
    ((6, 5), 3, 2, 1, 1, 2),
    ((9, 8), 3, 1, 2, 2, 1),
    ((6, 9), 2, 2, 0, 3, 2),
    ((4, 5), 1, 1, 0, 1, 4),
]


def operands(geometry, seed=0, spread=2.0, channels=4, width=3):
    """x, kernel, offsets (some far outside the image), modulation and the keywords, float64."""
    (height, across), size, stride, padding, dilation, groups = geometry
    rng = np.random.default_rng(seed)
    out = [(side + 2 * padding - dilation * (size - 1) - 1) // stride + 1 for side in (height, across)]
    x = rng.normal(size=(2, height, across, channels))
    kernel = rng.normal(size=(size, size, channels, width))
    offsets = rng.normal(size=(2, *out, groups * size**2 * 2)) * spread
    modulation = rng.uniform(size=(2, *out, groups * size**2))
    return x, kernel, offsets, modulation, {"stride": stride, "padding": padding, "dilation": dilation}


def loops(x, kernel, offsets, modulation, *, stride, padding, dilation):
    """Equations 2 to 4 of Dai et al. and 1 of Zhu et al. as they stand: a sum over all pixels q of G(q, p) x(q)."""
    _, height, across, channels = x.shape
    rows, columns, _, width = kernel.shape
    groups = offsets.shape[-1] // (2 * rows * columns)
    y = np.zeros((*offsets.shape[:3], width))
    for b, i, j in np.ndindex(offsets.shape[:3]):
        for k, (u, v) in enumerate(np.ndindex(rows, columns)):
            for c in range(channels):
                point = c // (channels // groups) * rows * columns + k
                dy, dx = offsets[b, i, j, 2 * point : 2 * point + 2]
                row = i * stride - padding + u * dilation + dy
                column = j * stride - padding + v * dilation + dx
                vertical = np.maximum(0, 1 - np.abs(np.arange(height) - row))
                horizontal = np.maximum(0, 1 - np.abs(np.arange(across) - column))
                y[b, i, j] += modulation[b, i, j, point] * (vertical @ x[b, :, :, c] @ horizontal) * kernel[u, v, c]
    return y


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_values_equal_the_papers_equations(geometry):
    x, kernel, offsets, modulation, form = operands(geometry)
    with jax.enable_x64(True):
        plain = deform_conv(*map(jnp.asarray, (x, kernel, offsets)), **form)
        modulated = deform_conv(*map(jnp.asarray, (x, kernel, offsets, modulation)), **form)
    assert modulated.dtype == jnp.float64
    np.testing.assert_allclose(plain, loops(x, kernel, offsets, np.ones_like(modulation), **form), atol=1e-12)
    np.testing.assert_allclose(modulated, loops(x, kernel, offsets, modulation, **form), atol=1e-12)


@pytest.mark.parametrize("geometry", [GEOMETRIES[1], GEOMETRIES[3]])
def test_values_equal_onnx_reference(geometry):
    """ONNX's operator DeformConv, whose layout is torchvision's; its reference has float32 positions."""
    missing = "onnx is not installed (pip install onnx): not run"
    helper = pytest.importorskip("onnx.helper", reason=missing)
    evaluator = pytest.importorskip("onnx.reference", reason=missing).ReferenceEvaluator
    x, kernel, offsets, modulation, form = operands(geometry, seed=1)
    node = helper.make_node(
        "DeformConv",
        ["x", "w", "offset", "", "mask"],
        ["y"],
        strides=[form["stride"]] * 2,
        pads=[form["padding"]] * 4,
        dilations=[form["dilation"]] * 2,
        offset_group=geometry[-1],
    )
    inputs = {"x": x, "offset": offsets, "mask": modulation}
    inputs = {name: a.transpose(0, 3, 1, 2) for name, a in inputs.items()} | {"w": kernel.transpose(3, 2, 0, 1)}
    expected = evaluator(node).run(None, inputs)[0]
    with jax.enable_x64(True):
        y = deform_conv(*map(jnp.asarray, (x, kernel, offsets, modulation)), **form)
    np.testing.assert_allclose(y, expected.transpose(0, 2, 3, 1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_zero_offsets_equal_the_plain_convolution_exactly(geometry):
    """On whole numbers, whose sums float32 holds exactly in any order; and nearly on others."""
    (height, across), size, stride, padding, dilation, _ = geometry
    shape = operands(geometry)[2].shape
    rng = np.random.default_rng(0)
    plain = nn.Conv(3, (size, size), stride, padding, kernel_dilation=dilation, use_bias=False)
    form = {"stride": stride, "padding": padding, "dilation": dilation}
    for draw, tolerance in ((functools.partial(rng.integers, -9, 10), 0), (rng.normal, 1e-5)):
        x = jnp.asarray(draw(size=(2, height, across, 4)), jnp.float32)
        kernel = jnp.asarray(draw(size=(size, size, 4, 3)), jnp.float32)
        y = deform_conv(x, kernel, jnp.zeros(shape), **form)
        np.testing.assert_allclose(y, plain.apply({"params": {"kernel": kernel}}, x), rtol=0, atol=tolerance)


@pytest.mark.parametrize("shift", [(1, 0), (0, -1), (-2, 3), (5, -7), (100, 0), (0, -3e9)])
def test_whole_offsets_equal_the_convolution_of_the_shifted_image(shift):
    """Exactly, at the borders too: what comes from outside is zero, however far away."""
    rng = np.random.default_rng(0)
    height, across = 6, 7
    x = rng.integers(-9, 10, (2, height, across, 4)).astype(np.float32)
    kernel = jnp.asarray(rng.integers(-9, 10, (3, 3, 4, 3)), jnp.float32)
    # A frame of one more pixel than the image, for the padding of the convolution reads the shifted image's outside.
    shifted = np.zeros((2, height + 2, across + 2, 4), np.float32)
    for i, j in np.ndindex(*shifted.shape[1:3]):
        row, column = i - 1 + shift[0], j - 1 + shift[1]
        if 0 <= row < height and 0 <= column < across:
            shifted[:, i, j] = x[:, int(row), int(column)]
    offsets = jnp.tile(jnp.asarray(shift, jnp.float32), 9) * jnp.ones((2, height, across, 1))
    y = deform_conv(jnp.asarray(x), kernel, offsets, padding=1)
    expected = nn.Conv(3, (3, 3), padding="VALID", use_bias=False).apply({"params": {"kernel": kernel}}, shifted)
    np.testing.assert_array_equal(y, expected)
    assert (np.abs(expected).max() > 0) == (max(map(abs, shift)) < 9)


@pytest.mark.parametrize("geometry", GEOMETRIES[:4])
def test_gradients_equal_finite_differences(geometry):
    """Of every single value of input, kernel, offsets and modulation, borders included, in float64."""
    *arrays, form = operands(geometry, channels=2 * geometry[-1], width=2)
    arrays[2] = np.floor(arrays[2]) + np.clip(arrays[2] % 1, 0.05, 0.95)  # away from the kinks at whole numbers
    target = np.random.default_rng(2).normal(size=(*arrays[2].shape[:3], 2))

    with jax.enable_x64(True):
        flat, unflatten = ravel_pytree([jnp.asarray(array) for array in arrays])

        def value(flat):
            return jnp.sum(target * jnp.sin(deform_conv(*unflatten(flat), **form)))

        def difference(place, step=1e-6):
            return (value(flat.at[place].add(step)) - value(flat.at[place].add(-step))) / (2 * step)

        gradients = unflatten(jax.jit(jax.grad(value))(flat))
        expected = unflatten(jax.jit(lambda: jax.lax.map(difference, jnp.arange(flat.size)))())
    for gradient, reference in zip(gradients, expected, strict=True):
        assert np.abs(reference).max() > 0.1
        np.testing.assert_allclose(gradient, reference, rtol=0, atol=1e-7)


def test_the_gradient_at_zero_offsets_is_that_of_the_pixel_below_and_to_the_right():
    x = jnp.asarray([[1.0, 3.0, 7.0], [2.0, 20.0, 5.0], [4.0, 30.0, 6.0]])[None, ..., None]
    gradient = jax.grad(lambda o: deform_conv(x, jnp.ones((1, 1, 1, 1)), o)[0, 1, 1, 0])(jnp.zeros((1, 3, 3, 2)))
    np.testing.assert_array_equal(gradient[0, 1, 1], [30 - 20, 5 - 20])


def test_positions_are_exact_in_bfloat16():
    """Row 299 is no bfloat16: a position computed in it would read another row."""
    x = jnp.arange(300, dtype=jnp.float32)[None, :, None, None] % 64
    kernel = jnp.ones((1, 1, 1, 1))
    y = deform_conv(*(a.astype(jnp.bfloat16) for a in (x, kernel, jnp.zeros((1, 300, 1, 2)))))
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y.astype(jnp.float32), x)


def test_memory_does_not_grow_with_the_kernel():
    """As XLA counts it: some 3 maps forward and 12 backward, where columns of a 5x5 would be 25."""
    x = jnp.zeros((1, 32, 32, 32))
    for size in (3, 5):
        kernel, offsets = jnp.zeros((size, size, 32, 32)), jnp.zeros((1, 32, 32, 2 * size**2))
        forward = functools.partial(deform_conv, padding=size // 2)
        backward = jax.grad(lambda *a: jnp.sum(forward(*a) ** 2), (0, 1, 2))  # noqa: B023
        for function, maps in ((forward, 3), (backward, 12)):
            memory = jax.jit(function).lower(x, kernel, offsets).compile().memory_analysis()
            extra = 4 * offsets.nbytes + 2 * kernel.nbytes  # transposed and as gradients
            assert memory.temp_size_in_bytes < maps * x.nbytes + extra


@pytest.mark.parametrize("modulated", [False, True])
def test_the_layer_starts_from_the_plain_convolution_and_learns_its_offsets(modulated):
    layer = DeformConv(5, stride=2, padding=1, modulated=modulated, offset_groups=2)
    x = jax.random.normal(jax.random.key(0), (2, 7, 6, 4))
    variables = layer.init(jax.random.key(1), x)
    variables["params"]["bias"] = jnp.arange(5.0)
    plain = nn.Conv(5, (3, 3), 2, 1).apply({"params": {k: variables["params"][k] for k in ("kernel", "bias")}}, x)
    scale = 0.5 if modulated else 1  # v2's modulation starts at sigmoid(0)
    np.testing.assert_allclose(layer.apply(variables, x), scale * (plain - jnp.arange(5)) + jnp.arange(5), atol=1e-5)
    offset = variables["params"]["conv_offset"]
    assert offset["kernel"].shape == (3, 3, 4, 2 * 9 * (3 if modulated else 2)) and not offset["kernel"].any()
    gradients = jax.grad(lambda v: jnp.sum(layer.apply(v, x) ** 2))(variables)["params"]
    assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(gradients))


def test_the_layer_takes_offsets_then_modulations_from_its_convolution():
    layer = DeformConv(3, padding=1, modulated=True, offset_groups=2)
    x = np.random.default_rng(0).normal(size=(2, 5, 6, 4)).astype(np.float32)
    params = layer.init(jax.random.key(1), x)["params"]
    params["conv_offset"]["kernel"] = 0.3 * jax.random.normal(jax.random.key(2), (3, 3, 4, 54))
    params["conv_offset"]["bias"] = jax.random.normal(jax.random.key(3), (54,))
    out = np.asarray(nn.Conv(54, (3, 3), padding=1).apply({"params": params["conv_offset"]}, x), np.float64)
    modulation = 1 / (1 + np.exp(-out[..., 36:]))
    expected = loops(x, np.asarray(params["kernel"]), out[..., :36], modulation, stride=1, padding=1, dilation=1)
    np.testing.assert_allclose(layer.apply({"params": params}, x), expected, atol=2e-5)


def test_shapes_that_do_not_fit_are_answered():
    x, kernel, offsets, modulation, form = operands(GEOMETRIES[0])
    with pytest.raises(UserError, match="offsets are"):
        deform_conv(x, kernel, offsets[..., :-1], **form)
    with pytest.raises(UserError, match="offsets are"):
        deform_conv(x, kernel, offsets)
    with pytest.raises(UserError, match="3 groups"):
        deform_conv(x, kernel, np.tile(offsets, 3), **form)
    with pytest.raises(UserError, match="modulation is"):
        deform_conv(x, kernel, offsets, modulation[:, 1:], **form)


@pytest.mark.parametrize("name", ["resnet50_dcn", "resnet50_dcnv2"])
def test_without_offsets_it_is_resnet50(name):
    """Deformable layers at zero offsets and full modulation, all weights and statistics of the plain net."""
    small = {"classes": 7, "width": 0.0625, "depth": (1, 1, 1, 2)}
    plain, model = create_model("resnet50", **small), create_model(name, **small)
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 97, 65, 3)), jnp.float32)
    shapes = flatten_dict(jax.eval_shape(lambda: model.init(jax.random.key(1), x, train=False)), sep="/")
    weights, offsets = {}, {}
    for path, leaf in shapes.items():
        if "conv_offset" in path:
            # No offsets, and modulations of sigmoid(100), which is 1.
            offsets[path] = jnp.zeros(leaf.shape).at[..., 18:].set(100 if path.endswith("bias") else 0)
        elif path.endswith("kernel"):
            weights[path] = jnp.asarray(rng.normal(size=leaf.shape) * np.prod(leaf.shape[:-1]) ** -0.5, jnp.float32)
        else:
            weights[path] = jnp.asarray(rng.uniform(0.5, 1.5, leaf.shape), jnp.float32)
    stages = {"layer4"} if name == "resnet50_dcn" else {"layer2", "layer3", "layer4"}
    assert {path.split("/")[2][:6] for path in offsets} == stages

    expected = jax.jit(functools.partial(plain.apply, train=False))(unflatten_dict(weights, sep="/"), x)
    apply = jax.jit(functools.partial(model.apply, train=False))
    assert np.std(expected) > 0.01
    np.testing.assert_allclose(apply(unflatten_dict(weights | offsets, sep="/"), x), expected, atol=1e-5)
    offsets = {path: a + 0.3 for path, a in offsets.items()}
    assert np.abs(apply(unflatten_dict(weights | offsets, sep="/"), x) - expected).max() > 1e-3


def test_the_deformable_nets_take_any_size_and_refuse_what_they_cannot_do():
    def shapes(size, **fields):
        model = create_model("resnet50_dcnv2", **fields)
        return jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, size, size, 3)), train=False))

    assert "batch_stats" in shapes(1)
    with pytest.raises(UserError, match="stages are 2 to 5"):
        shapes(32, deformable=(1,))
    with pytest.raises(UserError, match="has no groups"):
        shapes(32, groups=32)
