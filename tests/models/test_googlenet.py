"""GoogLeNet: the paper's form against the ONNX graph of Caffe's bvlc_googlenet, the other against torchvision's."""

import functools
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxcnn.errors import UserError
from jaxcnn.models import create_model
from jaxcnn.models.googlenet import TABLE_1, GoogLeNetAuxiliaryHead, branches
from jaxcnn.models.inception import ConvNorm, Inception
from jaxcnn.models.pretrained import leaves
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

functional = torch.nn.functional


def shapes(model, size, train=False, method="outputs"):
    images = jax.ShapeDtypeStruct((2, *size, 3), jnp.float32)
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(0)}
    return jax.eval_shape(lambda x: model.init_with_output(keys, x, train=train, method=method), images)


def count(name, **fields):
    model = create_model(name, **fields)
    return sum(math.prod(shape) for path, shape in leaves(model, (224, 224, 3)).items() if path.startswith("params"))


def test_counts_with_both_auxiliary_heads():
    assert count("googlenet") == 13378280
    assert count("googlenet_bn") == 13004888
    assert count("googlenet", aux={}) == 6998552


def test_stages_are_those_of_table_1():
    ends, _ = shapes(create_model("googlenet"), (224, 224), method="features")
    sizes = {name: end.shape[1:] for name, end in ends.items()}
    assert sizes["stage1"] == (112, 112, 64) and sizes["stage2"] == (56, 56, 192)
    assert sizes["inception3a"] == (28, 28, 256) and sizes["stage3"] == sizes["inception3b"] == (28, 28, 480)
    assert sizes["inception4a"] == sizes["inception4b"] == sizes["inception4c"] == (14, 14, 512)
    assert sizes["inception4d"] == (14, 14, 528) and sizes["stage4"] == sizes["inception4e"] == (14, 14, 832)
    assert sizes["inception5a"] == (7, 7, 832)
    assert sizes["stage5"] == sizes["inception5b"] == sizes["final"] == (7, 7, 1024)


@pytest.mark.parametrize("name, smallest", [("googlenet", 31), ("googlenet_bn", 15)])
def test_smallest_input(name, smallest):
    model = create_model(name, width=0.125)
    outputs, _ = shapes(model, (smallest, 2 * smallest), train=True)
    assert outputs.logits.shape == outputs.aux["inception4a"].shape == (2, 1000)
    with pytest.raises(UserError, match=f"needs {smallest}x{smallest}"):
        shapes(model, (2 * smallest, smallest - 1))


def random_variables(model, size, seed=0):
    """Kernels that keep the scale of the signal, biases that are seen."""
    rng = np.random.default_rng(seed)

    def draw(path, shape):
        if path.endswith("kernel"):
            return rng.normal(0, np.sqrt(2 / math.prod(shape[:-1])), shape)
        return rng.uniform(-1, 1, shape)

    drawn = {path: draw(path, shape).astype(np.float32) for path, shape in leaves(model, (*size, 3)).items()}
    return unflatten_dict(drawn, sep="/")


def caffe_name(layer):
    """bvlc_googlenet's name of a layer of the backbone."""
    kinds = {
        "branch1": "1x1",
        "branch2_0": "3x3_reduce",
        "branch2_1": "3x3",
        "branch3_0": "5x5_reduce",
        "branch3_1": "5x5",
        "branch4_1": "pool_proj",
    }
    plain = {"conv1": "conv1/7x7_s2", "conv2": "conv2/3x3_reduce", "conv3": "conv2/3x3", "fc": "loss3/classifier"}
    if layer in plain:
        return plain[layer]
    module, branch = layer.split("/")
    return f"{module.replace('inception', 'inception_')}/{kinds[branch]}"


def run_caffe_graph(variables, images, ceil):
    """Last map and logits of the graph with our weights, its operators by PyTorch.

    (The onnx package's own evaluator normalises as many channels as there are images, and is slow.) The graph's
    poolings round down; with `ceil` they round up, as Caffe's do.
    """
    onnx = pytest.importorskip("onnx", reason="onnx is not installed (pip install -e '.[parity]'): not run")
    directory = pathlib.Path(onnx.__file__).parent / "backend/test/data/light"
    graph = onnx.load(directory / "light_inception_v1.onnx").graph
    shapes = {i.name: tuple(i.dims) for i in graph.initializer}
    fills = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "ConstantOfShape"}
    dims = {i.name: tuple(onnx.numpy_helper.to_array(i)) for i in graph.initializer if i.name in fills.values()}
    shapes |= {name: dims[source] for name, source in fills.items()}
    values = {}
    for path, array in flatten_dict(variables["params"], sep="/").items():
        _, *layer, leaf = path.split("/")
        name = f"{caffe_name('/'.join(layer).removesuffix('/conv'))}_{'b' if leaf == 'bias' else 'w'}_0"
        array = array.T if array.ndim == 2 else array.transpose(3, 2, 0, 1) if array.ndim == 4 else array
        assert array.shape == shapes[name][-array.ndim :], name
        values[name] = torch.from_numpy(array.copy())
    unused = set(values)
    values["data_0"] = to_torch(images)
    for node in graph.node:
        if node.op_type == "ConstantOfShape":
            continue
        unused -= set(node.input)
        x, *others = (values.get(name) for name in node.input)
        options = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        kernel, stride = options.get("kernel_shape"), options.get("strides")
        top, left, bottom, right = options.get("pads", (0, 0, 0, 0))
        if ceil and node.op_type == "MaxPool" and stride == [2, 2]:
            bottom = right = 1
        if ceil and node.op_type == "AveragePool":
            bottom = right = 0
        pad = functools.partial(functional.pad, pad=(left, right, top, bottom))
        match node.op_type:
            case "Conv":
                y = functional.conv2d(pad(x), *others, stride)
            case "Relu":
                y = x.relu()
            case "MaxPool":
                y = functional.max_pool2d(pad(x, value=-math.inf), kernel, stride)
            case "AveragePool":
                inside = functional.avg_pool2d(pad(torch.ones_like(x)), kernel, stride)
                y = functional.avg_pool2d(pad(x), kernel, stride) / inside
            case "LRN":
                y = functional.local_response_norm(x, *(options[key] for key in ("size", "alpha", "beta", "bias")))
                assert y.max() < 0.9 * x.max()  # it is seen in the result
            case "Concat":
                y = last = torch.cat([x, *others], 1)
            case "Dropout":
                y = x
            case "Reshape":
                y = x.reshape(-1, 1024)
            case "Gemm":
                y = x @ others[0].T + others[1]
            case "Softmax":
                assert not unused
                return last.numpy(), x.numpy()
        values[node.output[0]] = y


@pytest.mark.parametrize("size, ceil", [((221, 222), False), ((224, 224), True)])
def test_the_papers_form_equals_caffes_graph(size, ceil):
    """At 221 and 222 rounding up and down give the same sizes, so that the graph is used as it is shipped.

    Images are of the order of 0..255 minus the mean, as Caffe's: there the response normalisation is large.
    """
    model = create_model("googlenet", aux={})
    variables = random_variables(model, size)
    images = 70 * photo(size)
    last, logits = run_caffe_graph(variables, images, ceil)
    ends = model.apply(variables, jnp.asarray(images), train=False, method="features")
    close(ends["final"], last.transpose(0, 2, 3, 1), 1e-4)
    close(model.apply(variables, ends["final"], train=False, method="classify"), logits, 1e-4)


def last_map(net, images):
    """torchvision's map before the average pooling."""
    seen = []
    hook = net.avgpool.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    net(images)
    hook.remove()
    return seen[0]


def test_torchvisions_form_equals_torchvisions():
    net = randomize(torchvision().googlenet(weights=None, init_weights=False, aux_logits=True))
    check_evaluation("googlenet_bn", net, PARITY_SIZES, features=last_map, compiled=True)

    def outputs(out):
        return out.logits, {"inception4a": out.aux_logits1, "inception4d": out.aux_logits2}

    # Without the modules that read as many maps as they make: the gradient of all nine takes long to compile.
    kept = [row for row in TABLE_1 if row not in ("4b", "4c", "5a")]
    net.inception4b = net.inception4c = net.inception5a = torch.nn.Identity()
    shorter = {"modules": tuple(kept), "dropout": 0.0}
    check_training("googlenet_bn", net, (65, 81), outputs=outputs, compiled=True, **shorter)


def test_auxiliary_head_is_the_papers():
    """Section 5, written with PyTorch's functions."""
    head = GoogLeNetAuxiliaryHead(classes=7, widths=(32,), dropout=0.0)
    maps = photo((14, 14, 24), batch=3)
    _, variables = head.init_with_output(jax.random.key(0), maps, train=False)
    weights = {path: torch.from_numpy(np.array(x)) for path, x in flatten_dict(variables["params"], sep="/").items()}
    x = functional.avg_pool2d(to_torch(maps), 5, 3)
    assert x.shape == (3, 24, 4, 4)
    x = functional.conv2d(x, weights["conv/conv/kernel"].permute(3, 2, 0, 1), weights["conv/conv/bias"]).relu()
    x = (x.permute(0, 2, 3, 1).reshape(3, -1) @ weights["fc1/kernel"] + weights["fc1/bias"]).relu()
    logits = x @ weights["fc2/kernel"] + weights["fc2/bias"]
    assert weights["fc1/kernel"].shape == (4 * 4 * 128, 32)
    close(head.apply(variables, maps, train=True), logits.numpy(), 1e-4)


def test_biases_start_as_caffes():
    model = create_model("googlenet", width=0.125, widths=(8,), modules=("4a", "4d"), classes=7)
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(0)}

    @jax.jit  # so that what is not asked for is not computed
    def initial_biases():
        params = model.init(keys, jnp.zeros((1, 33, 33, 3)), train=False, method="outputs")["params"]
        return {path: x for path, x in flatten_dict(params, sep="/").items() if x.ndim == 1}

    biases = {path: set(np.asarray(x).tolist()) for path, x in initial_biases().items()}
    logits = {"head/fc/bias", "aux_inception4a/fc2/bias", "aux_inception4d/fc2/bias"}
    assert all(values == {0.0 if path in logits else float(np.float32(0.2))} for path, values in biases.items())
    assert logits < biases.keys() and "aux_inception4d/fc1/bias" in biases


def test_naive_module_is_figure_2a():
    """The three convolutions and the pooling read the input; the pooling's channels are added to the others."""
    unit = functools.partial(ConvNorm, norm="none")
    module = Inception(branches("3a", large_kernel=5, naive=True), unit)
    maps = photo((7, 9, 192), batch=2)
    variables = module.init(jax.random.key(0), maps, train=False)
    x = to_torch(maps)
    theirs = []
    for name, kernel in (("branch1", 1), ("branch2_1", 3), ("branch3_1", 5)):
        weight = torch.from_numpy(np.array(variables["params"][name]["conv"]["kernel"])).permute(3, 2, 0, 1)
        assert weight.shape == ({1: 64, 3: 128, 5: 32}[kernel], 192, kernel, kernel)
        theirs.append(functional.conv2d(x, weight, padding=kernel // 2).relu())
    assert variables["params"].keys() == {"branch1", "branch2_1", "branch3_1"}
    theirs = torch.cat([*theirs, functional.max_pool2d(x, 3, 1, 1)], 1)
    close(module.apply(variables, maps, train=False), theirs.numpy().transpose(0, 2, 3, 1), 1e-4)


def test_naive_net_grows_with_every_module():
    ends, _ = shapes(create_model("googlenet", naive=True, width=0.125, aux={}), (64, 64), method="features")
    channels = 192 // 8
    for row, (one, _, three, _, five, _) in TABLE_1.items():
        channels += one // 8 + three // 8 + five // 8
        assert ends[f"inception{row}"].shape[-1] == channels


def test_fields_reach_the_auxiliary_heads():
    model = create_model("googlenet", classes=7, dropout=0.0, norm="batch", dtype="bfloat16", widths=(16,))
    for head in model.aux.values():
        assert (head.classes, head.dropout, head.norm, head.dtype, head.widths) == (7, 0.0, "batch", "bfloat16", (16,))
    with pytest.raises(UserError, match="no field 'widhts'; did you mean 'width"):
        create_model("googlenet", widhts=(16,))


def test_an_auxiliary_head_whose_endpoint_is_left_out_is_answered():
    model = create_model("googlenet", width=0.125, modules=("3a", "4a"))
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    with pytest.raises(UserError, match="makes no endpoint 'inception4d'; did you mean 'inception4a'"):
        jax.eval_shape(
            lambda key, image: model.init(key, image, train=True, method="outputs"), jax.random.key(0), image
        )
