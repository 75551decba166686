"""Summaries: every model against the table of counts, the conventions on small nets, and the commands' output."""

import csv
import functools
import json
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import jaxcnn
from jaxcnn.__main__ import main
from jaxcnn.errors import UserError
from jaxcnn.models import GAP, MODELS, Classifier, create_model
from jaxcnn.models.layers import SqueezeExcite, apply_norm, avg_pool, conv, max_pool
from jaxcnn.summary import overview
from jaxcnn.summary.jaxpr import module_of
from jaxcnn.summary.summary import endpoints, input_shape, summarize
from tests.tiny_runs import ROOT

TABLE = {
    row["name"]: row
    for row in csv.DictReader((pathlib.Path(__file__).parent.parent / "models" / "architectures.csv").open())
}
PAGE = overview.block((ROOT / "docs" / "models.md").read_text()).splitlines()
REFRESH = "the table in docs/models.md is not what the models are; run: jaxcnn models --update docs/models.md"


@functools.cache
def counted(name):
    """At the paper's size. Cached: a deep net takes a second."""
    return summarize(create_model(name), input_shape(name))


def layer(summary, name):
    (found,) = [layer for layer in summary.layers if layer.name == name]
    return found


def lines(capsys):
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("name", MODELS)
def test_counts_equal_the_table_and_the_page_carries_them(name):
    summary, row = counted(name), TABLE[name]
    assert input_shape(name) == tuple(int(n) for n in row["input"].split("x"))
    assert summary.parameters == sum(layer.parameters for layer in summary.layers) == int(row["parameters"])
    if row["multiply_adds"]:
        # Where the table says "MACs rounded", to a tenth of a percent.
        allowed = 1e-3 if "MACs rounded" in row["note"] else 0
        assert summary.multiply_adds == pytest.approx(int(row["multiply_adds"]), rel=allowed, abs=0)
    assert not [layer.name for layer in summary.layers if layer.kind == "unused"]
    assert len({layer.name for layer in summary.layers}) == len(summary.layers)
    line = overview.markdown_row(overview.row(name, summary.parameters, summary.multiply_adds))
    assert line in PAGE, REFRESH
    assert overview.stored_counts()[name] == (summary.parameters, summary.multiply_adds), REFRESH


def test_the_page_lists_the_models_in_order():
    assert "\n".join(PAGE[:2]) == overview.HEADER
    assert [line.split("`")[1] for line in PAGE[2:]] == list(MODELS), REFRESH


# Araujo, Norris & Sim 2019, Computing receptive fields of convolutional neural networks (Distill), table of networks.
PUBLISHED_FIELDS = {
    "alexnet_owt": 195,
    "vgg16": 212,
    "inception_v3": 1311,
    "inception_v4": 2071,
    "resnet50_v1": 483,
    "resnet101_v1": 1027,
    "resnet152_v1": 1507,
}


@pytest.mark.parametrize("name", sorted(MODELS.keys() & PUBLISHED_FIELDS.keys()))
def test_receptive_fields_are_the_published_ones(name):
    final = counted(name).endpoints["final"]
    assert final.receptive_field == (PUBLISHED_FIELDS[name],) * 2 and final.stride == (32, 32)


def test_vgg_layer_by_layer():
    summary = counted("vgg16")
    rows = [layer for layer in summary.layers if layer.name.startswith("backbone/conv3_")]
    assert [row.name for row in rows] == ["backbone/conv3_1", "backbone/conv3_2", "backbone/conv3_3"]
    assert {(row.kind, row.output, row.kernel, row.stride, row.jump) for row in rows} == {
        ("conv", (56, 56, 256), (3, 3), (1, 1), (4, 4))
    }
    assert [row.field for row in rows] == [(24, 24), (32, 32), (40, 40)]
    pools = [layer.name for layer in summary.layers if layer.kind == "max_pool"]
    assert pools == [f"backbone/max_pool{n}" for n in range(1, 6)]
    fc = layer(summary, "head/fc6")
    assert (fc.kind, fc.output, fc.parameters, fc.multiply_adds) == ("dense", (4096,), 102_764_544, 102_760_448)
    assert fc.field == (math.inf, math.inf) and fc.jump is None
    assert summary.activation_bytes == 4 * sum(math.prod(layer.output) for layer in summary.layers)
    half = summarize(create_model("vgg16", dtype="bfloat16"), (224, 224, 3))
    assert half.activation_bytes == summary.activation_bytes // 2
    assert (half.parameters, half.multiply_adds) == (summary.parameters, summary.multiply_adds)


def test_norms_and_running_statistics_have_their_own_rows_and_counts():
    summary = counted("lecture_batchnorm")
    assert summary.statistics == 896 and summary.parameters + summary.statistics == 511690
    norms = [layer for layer in summary.layers if layer.kind == "norm"]
    assert [norm.name for norm in norms] == [f"backbone/bn{n}" for n in range(1, 7)]
    assert norms[0].output == (27, 27, 32) and norms[0].parameters == 64 and norms[0].multiply_adds == 0


def test_lenet_has_the_connections_of_its_paper():
    # Section II.B of the paper; connections are multiply-adds and biases.
    summary = counted("lenet5_1998")
    c1, c3, c5 = (layer(summary, name) for name in ("backbone/c1", "backbone/c3", "head/c5"))
    assert c1.multiply_adds + 28 * 28 * 6 == 122_304
    assert c3.multiply_adds + 10 * 10 * 16 == 151_600
    assert c5.multiply_adds + 120 == 48_120
    assert [layer(summary, f"backbone/{name}").parameters for name in ("s2", "s4")] == [12, 32]


def test_global_average_pooling_has_no_parameters():
    summary = summarize(create_model("vgg11", head=GAP(classes=1000)), (224, 224, 3))
    gap, fc = layer(summary, "head/gap"), layer(summary, "head/fc")
    assert (gap.parameters, gap.multiply_adds, gap.kernel, gap.output) == (0, 0, (7, 7), (512,))
    assert fc.parameters == 513_000


@pytest.mark.parametrize("name, fields", [("mlp", {}), ("lenet5", {}), ("lecture_batchnorm", {"activation": "tanh"})])
def test_flops_equal_xlas(name, fields):
    # Nets without padding, whose zeros XLA leaves out, without sigmoids, which it counts as four operations, and
    # without batch norm, whose work on parameters alone it counts too.
    if name == "lecture_batchnorm":
        fields = fields | {"norm": "none"}
    model = create_model(name, **fields)
    head = model.head.clone(activation="relu") if name == "lecture_batchnorm" else model.head
    model = model.clone(head=head)
    images = jax.ShapeDtypeStruct((1, *input_shape(name)), jnp.float32)
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), images)
    cost = jax.jit(lambda v, x: model.apply(v, x, train=False)).lower(variables, images).cost_analysis()
    assert summarize(model, input_shape(name)).flops == cost["flops"] + cost.get("transcendentals", 0)


def test_nothing_is_allocated():
    summary = summarize(create_model("vgg16"), (16384, 16384, 3))
    assert summary.activation_bytes > 2**38 and summary.parameters == 138_357_544
    assert layer(summary, "head/adaptive").output == (7, 7, 512)


def test_adaptive_pooling_costs_no_multiply_adds():
    usual, other = counted("vgg16"), summarize(create_model("vgg16"), (320, 256, 3))
    convs = lambda summary: sum(row.multiply_adds for row in summary.layers if row.kind == "conv")  # noqa: E731
    assert convs(other) * 224 * 224 == convs(usual) * 320 * 256
    assert other.multiply_adds - convs(other) == usual.multiply_adds - convs(usual)
    assert [row.kind for row in usual.layers if row.name.startswith("head")] == ["dense"] * 3
    pool = layer(other, "head/adaptive")
    assert (pool.output, pool.multiply_adds, pool.parameters) == ((7, 7, 512), 0, 0)


class Branches(nn.Module):
    """Every way for positions to go: strides, dilation, 1x7, pooling, a strided slice, joining, adding, groups."""

    @nn.compact
    def __call__(self, x, *, train):
        make = functools.partial(conv, dtype="float32", kernel_init=nn.initializers.ones)
        x = make(4, 5, stride=2, padding=1, name="stem")(x)
        left = make(4, (1, 7), padding=(0, 3), groups=2, name="left")(x)
        right = make(4, 3, padding=2, dilation=2, name="right")(x)
        joined = jnp.concatenate([left, right], axis=-1)
        stage1 = joined + make(8, 1, name="add")(x)
        x = avg_pool(stage1, 3, stride=2, padding=1)
        shortcut = jnp.pad(x[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (0, 4)))
        stage2 = shortcut + make(12, 3, stride=2, padding=1, name="last")(x)
        return {"stage1": stage1, "stage2": stage2, "final": stage2}


def test_receptive_fields_are_what_the_gradient_sees():
    model = Classifier(Branches(), GAP(classes=2))
    images = jnp.ones((1, 80, 80, 3))
    variables = model.init(jax.random.key(0), images, train=False)
    ends = summarize(model, (80, 80, 3)).endpoints
    assert list(ends) == ["stage1", "stage2", "final"]
    features = functools.partial(model.apply, variables, train=False, method="features")
    maps = jax.eval_shape(features, images)
    pull = jax.jit(lambda one: jax.vjp(features, images)[1](one)[0])

    def seen(name, row, column):
        """Rows and columns of the image that a position depends on."""
        one = {end: jnp.zeros(x.shape) for end, x in maps.items()}
        one[name] = one[name].at[0, row, column].set(1.0)
        return [np.unique(axis) for axis in np.nonzero(np.abs(pull(one)).sum(-1)[0])]

    for name, end in ends.items():
        assert end.shape == maps[name].shape[1:]
        row, column = (side // 2 for side in end.shape[:2])
        here, following = seen(name, row, column), seen(name, row + 1, column + 1)
        assert tuple(axis[-1] - axis[0] + 1 for axis in here) == end.receptive_field
        assert tuple(b[0] - a[0] for a, b in zip(here, following, strict=True)) == end.stride
    assert ends["stage1"].receptive_field == (13, 17) and ends["stage1"].stride == (2, 2)
    assert ends["final"].stride == (8, 8)


class Gated(nn.Module):
    norm: str = "none"
    remat: bool = False

    @nn.compact
    def __call__(self, x, *, train):
        x = conv(6, 3, padding=1, name="conv1", dtype="float32")(x)
        x = apply_norm(x, self.norm, train=train, name="norm1", dtype="float32")
        excite = nn.remat(SqueezeExcite) if self.remat else SqueezeExcite
        x = max_pool(excite(3, name="se")(x), 2, stride=2)
        return {"final": conv(5, 3, padding=1, name="conv2", dtype="float32")(x)}


@pytest.mark.parametrize("norm, remat", [("none", False), ("none", True), ("layer", False), ("group", False)])
def test_a_gate_or_a_statistic_does_not_widen_the_field(norm, remat):
    summary = summarize(Classifier(Gated(norm, remat), GAP(classes=3)), (16, 12, 2))
    final = summary.endpoints["final"]
    assert (final.shape, final.receptive_field, final.stride) == ((8, 6, 5), (8, 8), (2, 2))
    kinds = {layer.name: (layer.kind, layer.parameters, layer.multiply_adds) for layer in summary.layers}
    expected = {
        "backbone/conv1": ("conv", 9 * 2 * 6 + 6, 16 * 12 * 9 * 2 * 6),
        "backbone/norm1": ("norm", 12, 0),
        "backbone/se/gap": ("gap", 0, 0),
        "backbone/se/fc1": ("dense", 6 * 3 + 3, 18),
        "backbone/se/fc2": ("dense", 3 * 6 + 6, 18),
        "backbone/max_pool": ("max_pool", 0, 0),
        "backbone/conv2": ("conv", 9 * 6 * 5 + 5, 8 * 6 * 9 * 6 * 5),
        "head/gap": ("gap", 0, 0),
        "head/fc": ("dense", 5 * 3 + 3, 15),
    }
    if norm == "none":
        del expected["backbone/norm1"]
    else:
        assert layer(summary, "backbone/norm1").output == (16, 12, 6)
    assert kinds == expected


def test_joining_the_mean_of_the_image_widens_the_field():
    class Context(nn.Module):
        @nn.compact
        def __call__(self, x, *, train):
            mean = jnp.broadcast_to(x.mean((1, 2), keepdims=True), x.shape)
            return {"added": x + mean, "final": jnp.concatenate([x, mean], axis=-1)}

    ends = summarize(Classifier(Context(), GAP(classes=2)), (8, 8, 3)).endpoints
    assert ends["added"].receptive_field == (1, 1) and ends["final"].receptive_field == (math.inf, math.inf)
    assert ends["final"].stride == (1, 1) and ends["final"].shape == (8, 8, 6)


class Sampled(nn.Module):
    """A 3x3 kernel whose nine points are gathered where a second convolution says; point by point in a scan."""

    @nn.compact
    def __call__(self, x, *, train):
        x = conv(4, 3, stride=2, padding=1, name="stem", dtype="float32")(x)
        kernel = self.param("kernel", nn.initializers.ones, (3, 3, 4, 7))
        batch, height, width, channels = x.shape
        offsets = conv(9, 3, stride=2, padding=1, name="offsets", dtype="float32")(x)
        rows, columns = offsets.shape[1:3]
        places = jnp.round(offsets).astype(jnp.int32).reshape(batch, rows * columns, 9).transpose(2, 0, 1)
        pixels = x.reshape(batch, height * width, channels)

        def step(total, point):
            place, weights = point
            near = jnp.take_along_axis(pixels, place[..., None], axis=1)
            return total + near @ weights, None

        start = jnp.zeros((batch, rows * columns, 7))
        y, _ = jax.lax.scan(step, start, (places, kernel.reshape(9, 4, 7)))
        return {"final": y.reshape(batch, rows, columns, 7)}


def test_deformable_sampling_has_the_field_of_the_undeformed_kernel():
    summary = summarize(Classifier(Sampled(), GAP(classes=2)), (32, 24, 3))
    final, deform = summary.endpoints["final"], layer(summary, "backbone")
    assert (final.shape, final.stride, final.receptive_field) == ((8, 6, 7), (4, 4), (7, 7))
    assert (deform.kind, deform.kernel, deform.stride) == ("deform", (3, 3), (2, 2))
    assert deform.multiply_adds == 8 * 6 * 9 * 4 * 7 and deform.parameters == 9 * 4 * 7
    assert deform.output == (8, 6, 7)


def test_a_module_that_is_no_classifier_is_counted_too():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, *, train):
            x = nn.ConvTranspose(4, (4, 4), (2, 2), name="up")(x)
            scale = self.param("scale", nn.initializers.ones, (4,))
            unread = self.param("unread", nn.initializers.ones, (3,))
            del unread
            return nn.Dense(2, name="fc")((x * scale).reshape(x.shape[0], -1))

    summary = summarize(Net(), (6, 6, 1))
    up = layer(summary, "up")
    assert (up.kind, up.output, up.stride, up.jump) == ("deconv", (12, 12, 4), (0.5, 0.5), (0.5, 0.5))
    assert up.multiply_adds == 6 * 6 * 4 * 4 * 4  # each of 36 positions meets all weights; the zeros between do not
    assert summary.endpoints == {} and summary.parameters == 4 * 16 + 4 + 4 + 3 + 2 * 4 * 144 + 2
    with pytest.raises(NotImplementedError, match="loop"):
        summarize(_Loop(), (6, 6, 1))


class _Loop(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
        return jax.lax.while_loop(lambda x: x.sum() < 9, lambda x: x + 1, x)


def test_names_of_modules():
    assert module_of("Classifier/Classifier.features/backbone/conv1") == "backbone/conv1"
    assert module_of("Classifier.features/backbone/backbone.stem/block.inner/conv1") == "backbone/block/conv1"
    assert module_of("Classifier/backbone/vmap()/conv1") == "backbone/conv1"
    assert module_of("") == ""


def test_auxiliary_heads_are_counted_apart():
    model = create_model("vgg11", stages=3, head=GAP(classes=7), aux={"stage2": GAP(classes=7)})
    summary = summarize(model, (64, 64, 3))
    assert summary.auxiliary_parameters == 129 * 7
    assert not [layer for layer in summary.layers if "aux" in layer.name]


def test_endpoints_are_the_features():
    assert jaxcnn.endpoints is endpoints
    ends = endpoints("vgg11", 64, width=0.0625)
    assert endpoints(jaxcnn.create_model("vgg11", width=0.0625), (64, 64, 3)) == ends
    assert endpoints("vgg11", (64, 64, 3), width=0.0625) == ends
    with pytest.raises(UserError, match=r"needs the shape of its images, \(H, W, C\), not 64"):
        endpoints(jaxcnn.create_model("vgg11"), 64)
    with pytest.raises(UserError, match="give width where it is made"):
        endpoints(jaxcnn.create_model("vgg11"), (64, 64, 3), width=0.5)
    model = create_model("vgg11", width=0.0625)
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    features = jax.eval_shape(
        lambda x: model.init_with_output(jax.random.key(0), x, train=False, method="features")[0], images
    )
    assert {name: end.shape for name, end in ends.items()} == {name: end.shape[1:] for name, end in features.items()}
    assert list(ends) == ["stage1", "stage2", "stage3", "stage4", "stage5", "final"]
    assert [end.stride[0] for end in ends.values()] == [1, 2, 4, 8, 16, 32]
    assert endpoints("linear_640x480")["final"].shape == (640, 480, 1)
    assert endpoints("lenet5", (32, 40))["final"].shape == (5, 7, 16)
    with pytest.raises(UserError, match="too small"):
        endpoints("vgg16", 31)
    with pytest.raises(UserError, match="did you mean 'vgg16'"):
        endpoints("vg16")


def test_classes_and_image_size():
    summary = summarize(create_model("lenet5"), (32, 32, 1), classes=7)
    assert layer(summary, "head/output").output == (7,)
    assert summary.parameters == 61706 - 3 * 85


@pytest.mark.parametrize("width", [80, 120])
def test_summary_fits_the_terminal(width, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    assert main(["summary", "vgg11_bn"]) == 0
    out = lines(capsys)
    assert max(len(line.rstrip()) for line in out) <= width
    assert out[0].startswith("vgg11_bn, 224x224x3")
    (row,) = [line.split() for line in out if line.split()[:1] == ["conv2_1"]]
    counts = ["73,856", "924,844,032"] if width == 120 else ["73.86", "k", "924.84", "M"]
    assert row == ["conv2_1", "conv", "112x112x128", "3x3", "1", *counts, "8", "2"]
    text = "\n".join(out)
    assert all(total in text for total in ("132,868,840", "7,609,090,048", "62.5 MiB", "5,504 running statistics"))
    assert next(line for line in out if line.split()[:1] == ["fc8"]).split()[-1] == "all"


def test_summary_in_json_and_by_module(capsys):
    assert main(["summary", "lenet5", "--image-size", "36", "--classes", "3", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["input_shape"] == [36, 36, 1] and value["layers"][0]["output"] == [32, 32, 6]
    assert value["layers"][-1]["output"] == [3] and value["layers"][-1]["field"] == [None, None]
    assert value["endpoints"]["final"] == {
        "shape": [6, 6, 16],
        "stride": [4, 4],
        "receptive_field": [16, 16],
        "first": [7.5, 7.5],
    }
    assert main(["summary", "lenet5", "--depth", "1"]) == 0
    rows = {line.split()[0]: line.split() for line in lines(capsys) if line.strip()}
    assert rows["backbone"][:5] == ["backbone", "4", "layers", "5x5x16", "2.57"]
    assert rows["head"][:4] == ["head", "3", "layers", "10"]


def test_summary_refuses_wrong_names_and_sizes(capsys):
    assert main(["summary", "vg16"]) == 1
    assert "did you mean 'vgg16'" in capsys.readouterr().err
    assert main(["summary", "vgg16", "--image-size", "31"]) == 1
    assert "too small" in capsys.readouterr().err
    assert main(["models", "vg16"]) == 1
    assert "did you mean 'vgg16'" in capsys.readouterr().err


@pytest.mark.parametrize("width", [80, 120])
def test_models_table_fits_the_terminal(width, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    assert main(["models", "vgg1[13]*"]) == 0
    out = lines(capsys)
    assert max(len(line.rstrip()) for line in out) <= width
    (row,) = [line for line in out if line.split()[:1] == ["vgg13"]]
    assert ("Simonyan & Zisserman 2015" if width == 120 else "Simonyan 2015") in row
    assert ("133,047,848" if width == 120 else "133.05 M") in row
    assert row.split()[-5:] == ["11.31", "G", "71.3", "90.1", "(1)"]
    assert "(1) paper, Table 3, S = Q = 256, dense" in [line.rstrip() for line in out]


def test_models_for_scripts_and_for_the_page(capsys, tmp_path, monkeypatch):
    counted = []  # all of them take a minute; that the stored counts are right is another test's
    monkeypatch.setattr(overview, "count_all", lambda: counted.append(True))
    assert main(["models", "lenet*", "--names"]) == 0
    assert lines(capsys) == ["lenet5", "lenet5_1998"]
    assert main(["models", "lenet5", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["parameters"], row["multiply_adds"], row["year"]) == (61706, 416520, 1998)
    assert main(["models", "lenet5", "--markdown"]) == 0
    table = capsys.readouterr().out
    assert table.splitlines()[2] == "| `lenet5` | LeCun et al. 1998 | 32x32x1 | 61,706 | 416.52 k |  |  |  |"
    page = tmp_path / "page.md"
    page.write_text(f"before\n{overview.BEGIN}\nold\n{overview.END}\nafter\n")
    assert main(["models", "lenet5", "--update", str(page)]) == 0
    assert counted and page.read_text() == f"before\n{overview.BEGIN}\n{table}{overview.END}\nafter\n"
    page.write_text("no markers")
    assert main(["models", "lenet5", "--update", str(page)]) == 1
    assert "page.md: there is no <!-- models: begin -->" in capsys.readouterr().err
