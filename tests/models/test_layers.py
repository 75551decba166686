"""The layers against loops in numpy, and the initialisations against their papers' distributions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxcnn.errors import UserError
from jaxcnn.models import GAP, create_model
from jaxcnn.models.layers import (
    INITIALIZERS,
    adaptive_avg_pool,
    apply_norm,
    avg_pool,
    local_response_norm,
    max_pool,
    relu_of_sum,
)
from jaxcnn.models.lenet import BITMAPS, TABLE_1, PartialConv, Subsampling

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("size, grid", [((7, 7), (7, 7)), ((9, 13), (7, 7)), ((3, 5), (7, 2)), ((1, 1), (2, 3))])
def test_adaptive_average_pooling(size, grid):
    x = RNG.normal(size=(2, *size, 3)).astype(np.float32)
    expected = np.zeros((2, *grid, 3))
    for i in range(grid[0]):
        for j in range(grid[1]):
            rows = slice(int(np.floor(i * size[0] / grid[0])), int(np.ceil((i + 1) * size[0] / grid[0])))
            columns = slice(int(np.floor(j * size[1] / grid[1])), int(np.ceil((j + 1) * size[1] / grid[1])))
            expected[:, i, j] = x[:, rows, columns].mean((1, 2))
    np.testing.assert_allclose(adaptive_avg_pool(jnp.asarray(x), grid), expected, atol=1e-6)


@pytest.mark.parametrize("size", [3, 5])
def test_local_response_normalisation(size):
    x = RNG.normal(size=(2, 4, 3, 8)).astype(np.float32) * 20
    expected = np.zeros_like(x)
    for i in range(8):
        near = x[..., max(0, i - size // 2) : min(7, i + size // 2) + 1]
        expected[..., i] = x[..., i] / (2 + 1e-2 * (near**2).sum(-1)) ** 0.75
    np.testing.assert_allclose(local_response_norm(jnp.asarray(x), size=size, alpha=1e-2), expected, rtol=1e-5)


class Normalized(nn.Module):
    kind: str

    @nn.compact
    def __call__(self, x, train):
        return apply_norm(x, self.kind, train=train, name="norm", dtype="float32", decay=0.9, epsilon=1e-5)


def test_batch_norm_running_statistics_over_three_steps():
    model = Normalized("batch")
    batches = RNG.normal(2, 3, size=(3, 6, 4, 5, 2)).astype(np.float32)
    variables = model.init(jax.random.key(0), batches[0], True)
    mean, var = np.zeros(2), np.ones(2)
    for x in batches:
        y, updated = model.apply(variables, x, True, mutable=["batch_stats"])
        m, v = x.mean((0, 1, 2)), x.var((0, 1, 2))  # the biased variance
        np.testing.assert_allclose(y, (x - m) / np.sqrt(v + 1e-5), atol=1e-4)
        mean, var = 0.9 * mean + 0.1 * m, 0.9 * var + 0.1 * v
        variables = {**variables, **updated}
    np.testing.assert_allclose(updated["batch_stats"]["norm"]["mean"], mean, rtol=1e-4)
    np.testing.assert_allclose(updated["batch_stats"]["norm"]["var"], var, rtol=1e-4)


@pytest.mark.parametrize("train", [True, False])
def test_layer_and_group_norm_know_one_example_only(train):
    x = RNG.normal(2, 3, size=(3, 4, 5, 48)).astype(np.float32)
    for kind, groups in (("layer", 1), ("group", 16)):  # 16 is the largest divisor of 48 and 32
        model = Normalized(kind)
        y = model.apply(model.init(jax.random.key(0), x, train), x, train)
        parts = x.reshape(3, 20, groups, 48 // groups)
        expected = (parts - parts.mean((1, 3), keepdims=True)) / np.sqrt(parts.var((1, 3), keepdims=True) + 1e-5)
        np.testing.assert_allclose(y, expected.reshape(x.shape), atol=1e-4)


def test_no_norm_is_the_identity_and_a_wrong_name_is_answered():
    x = RNG.normal(size=(1, 2, 2, 3)).astype(np.float32)
    np.testing.assert_array_equal(Normalized("none").apply({}, x, True), x)
    with pytest.raises(UserError, match="did you mean 'batch'"):
        Normalized("batsch").apply({}, x, True)


def test_max_pooling_drops_what_no_whole_window_covers():
    x = RNG.normal(size=(1, 7, 7, 1)).astype(np.float32)
    expected = np.array([[x[0, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].max() for j in range(3)] for i in range(3)])
    np.testing.assert_array_equal(max_pool(jnp.asarray(x), 2, stride=2)[0, :, :, 0], expected)


@pytest.mark.parametrize("size, stride, padding", [(2, 2, 0), (3, 2, 0), (3, 2, 1), (3, 1, 1), (2, 2, 1), (5, 3, 2)])
@pytest.mark.parametrize("ceil_mode", [False, True])
def test_pooling_in_torchs_sizes(size, stride, padding, ceil_mode):
    """Against loops, over sizes at which floor and ceiling part; tests/models/test_parity.py has torch itself."""
    for side in range(5, 13):
        x = RNG.normal(size=(1, side, side + 1, 2)).astype(np.float32)
        starts = []
        for length in x.shape[1:3]:
            first = np.arange(-padding, length + padding, stride)
            last = length + padding - 1 if ceil_mode else length + padding - size
            starts.append([s for s in first if s <= last and s < length + (0 if ceil_mode else padding)])
            if ceil_mode:  # every pixel is covered as soon as one window ends at or beyond the padded edge
                ends = [s for s in starts[-1] if s + size >= length + padding]
                starts[-1] = [s for s in starts[-1] if not ends or s <= ends[0]]
        maximum, inside, padded = [], [], []
        for top in starts[0]:
            for left in starts[1]:
                rows, columns = (slice(max(s, 0), s + size) for s in (top, left))
                window = x[0, rows, columns]
                maximum.append(window.max((0, 1)))
                inside.append(window.mean((0, 1)))
                high = [min(s + size, n + padding) - s for s, n in zip((top, left), x.shape[1:3], strict=True)]
                padded.append(window.sum((0, 1)) / np.prod(high))
        shape = (1, len(starts[0]), len(starts[1]), 2)
        kind = {"stride": stride, "padding": padding, "ceil_mode": ceil_mode}
        np.testing.assert_allclose(max_pool(x, size, **kind), np.reshape(maximum, shape))
        np.testing.assert_allclose(avg_pool(x, size, **kind), np.reshape(padded, shape), rtol=1e-5, atol=1e-6)
        y = avg_pool(x, size, **kind, count_padding=False)
        np.testing.assert_allclose(y, np.reshape(inside, shape), rtol=1e-5, atol=1e-6)


def test_c3_reads_the_maps_of_table_1_and_no_others():
    x = RNG.normal(size=(2, 7, 6, 6)).astype(np.float32)
    variables = PartialConv().init(jax.random.key(0), x)
    kernel = np.asarray(variables["params"]["kernel"])
    bias = RNG.normal(size=16).astype(np.float32)
    y = PartialConv().apply({"params": {"kernel": kernel, "bias": bias}}, x)
    expected = np.zeros((2, 3, 2, 16))
    connection = 0
    for j, maps in enumerate(TABLE_1):
        expected[..., j] = bias[j]
        for i in maps:
            for r in range(3):
                for c in range(2):
                    window = x[:, r : r + 5, c : c + 5, i]
                    expected[:, r, c, j] += (window * kernel[:, :, connection]).sum((1, 2))
            connection += 1
    assert connection == 60 and kernel.shape == (5, 5, 60)
    np.testing.assert_allclose(y, expected, atol=1e-4)


def test_subsampling_is_a_scaled_sum_through_the_scaled_tanh():
    x = RNG.normal(size=(2, 4, 6, 3)).astype(np.float32)
    params = {"coefficient": np.array([0.2, -0.3, 0.4], np.float32), "bias": np.array([0.1, 0.0, -0.1], np.float32)}
    sums = x.reshape(2, 2, 2, 3, 2, 3).sum((2, 4))
    expected = 1.7159 * np.tanh(2 / 3 * (sums * params["coefficient"] + params["bias"]))
    np.testing.assert_allclose(Subsampling().apply({"params": params}, x), expected, rtol=1e-4, atol=1e-5)


def test_the_1998_output_is_minus_the_distance_to_ten_different_bitmaps():
    assert len(set(BITMAPS)) == 10 and all(len(bitmap) == 84 and set(bitmap) == {"#", "."} for bitmap in BITMAPS)
    images = jnp.asarray(RNG.normal(size=(2, 32, 32, 1)), jnp.float32)
    model = create_model("lenet5_1998")
    variables = model.init(jax.random.key(0), images, train=False)
    logits, taps = model.apply(variables, images, train=False, capture_intermediates=True)
    f6 = 1.7159 * np.tanh(2 / 3 * np.asarray(taps["intermediates"]["head"]["f6"]["__call__"][0]))
    for digit, bitmap in enumerate(BITMAPS):
        centre = np.array([1.0 if pixel == "#" else -1.0 for pixel in bitmap])
        np.testing.assert_allclose(logits[:, digit], -((f6 - centre) ** 2).sum(-1), rtol=1e-4)


@pytest.mark.parametrize(
    "name, std, cut",
    [
        ("he_fan_out", (2 / (9 * 256)) ** 0.5, None),
        ("he_fan_in", (2 / (9 * 64)) ** 0.5, None),
        ("he_fan_in_truncated", (2 / (9 * 64)) ** 0.5, 2 / 0.8796),
        ("lecun_normal", (1 / (9 * 64)) ** 0.5, 2 / 0.8796),
        ("normal_0.01", 0.01, None),
        ("truncated_normal_0.1", 0.08796, 2 / 0.8796),
    ],
)
def test_normal_initializers_are_cut_off_if_they_say_so(name, std, cut):
    """Of 147,456 draws of a whole normal distribution some lie beyond four deviations; `cut` is in deviations."""
    kernel = np.asarray(INITIALIZERS[name](jax.random.key(0), (3, 3, 64, 256), jnp.float32))
    assert kernel.std() == pytest.approx(std, rel=0.01)
    farthest = np.abs(kernel).max() / std
    assert farthest > 4 if cut is None else 0.99 * cut < farthest < 1.001 * cut


@pytest.mark.parametrize("fan, name", [("fan_in", "he_fan_in"), ("fan_out", "he_fan_out")])
def test_he_is_torchs_kaiming_normal(fan, name):
    """That of torchvision's DenseNet and ResNet, by quantiles of the draws."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed (pip install -e '.[parity]'): not run")
    theirs = torch.nn.init.kaiming_normal_(torch.empty(256, 64, 3, 3), mode=fan, nonlinearity="relu").numpy()
    ours = np.asarray(INITIALIZERS[name](jax.random.key(0), (3, 3, 64, 256), jnp.float32))
    at = [0.0005, 0.01, 0.1, 0.3, 0.7, 0.9, 0.99, 0.9995]
    np.testing.assert_allclose(np.quantile(ours, at), np.quantile(theirs, at), rtol=0.05)


@pytest.mark.parametrize(
    "name, path, fields, low, high, std",
    [
        # Glorot uniform: bound sqrt(6 / (fan_in + fan_out)), deviation bound / sqrt(3).
        ("vgg16", ("backbone", "conv3_2"), {}, -np.sqrt(6 / 4608), np.sqrt(6 / 4608), np.sqrt(2 / 4608)),
        ("vgg16", ("backbone", "conv3_2"), {"kernel_init": "he_fan_out"}, -1, 1, np.sqrt(2 / (9 * 256))),
        ("vgg16_bn", ("backbone", "conv3_2"), {}, -1, 1, np.sqrt(2 / (9 * 256))),
        ("lenet5_1998", ("head", "c5"), {}, -2.4 / 400, 2.4 / 400, 2.4 / 400 / np.sqrt(3)),
    ],
)
def test_initial_kernels_have_their_distribution(name, path, fields, low, high, std):
    model = create_model(name, **fields)
    if name.startswith("vgg"):
        model = model.clone(backbone=model.backbone.clone(stages=3), head=GAP(classes=2))
    images = jnp.zeros((1, 32, 32, 3 if name.startswith("vgg") else 1))
    init = jax.jit(functools.partial(model.init, train=False))
    kernel = np.asarray(init(jax.random.key(0), images)["params"][path[0]][path[1]]["kernel"])
    assert kernel.min() >= low and kernel.max() <= high
    assert kernel.std() == pytest.approx(std, rel=0.02)
    assert abs(kernel.mean()) < 0.02 * std * 3


def test_the_relu_of_a_sum_has_the_bits_of_relu_and_of_its_gradient():
    x = jnp.asarray([-2.0, -0.0, 0.0, 1e-40, 3.0, np.inf, -np.inf, np.nan])
    for dtype in (jnp.float32, jnp.bfloat16):
        ours, theirs = (jax.vjp(relu, x.astype(dtype)) for relu in (relu_of_sum, jax.nn.relu))
        given = jnp.arange(1, 9).astype(dtype)
        for a, b in zip((ours[0], *ours[1](given)), (theirs[0], *theirs[1](given)), strict=True):
            assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
