"""AlexNet: the paper's net against Caffe's graph of it and against one written here, "owt" against torchvision's.

Hidden FC layers are 64 wide instead of 4096, because 50 M weights would be most of the tests' time.
"""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax.traverse_util import flatten_dict

from jaxcnn.errors import UserError
from jaxcnn.models import create_model
from jaxcnn.models.alexnet import AlexNet
from jaxcnn.models.pretrained import REFERENCES, Reference, from_torch
from tests.models.parity import (
    PARITY_SIZES,
    check_evaluation,
    check_training,
    close,
    photo,
    randomize,
    torch,
    torchvision,
)


@pytest.fixture
def same_names(monkeypatch):
    """Weights of nets that call their layers as we do."""
    monkeypatch.setitem(REFERENCES, AlexNet, {"same": Reference(lambda model, path: path.split("/")[1])})


class Paper(torch.nn.Module):
    """Section 3 of the paper, channels scaled by 1 / `narrower`; two towers with response normalisation, or neither."""

    def __init__(self, towers=2, narrower=1):
        super().__init__()
        c = [n // narrower for n in (96, 256, 384, 384, 256)]
        conv = torch.nn.Conv2d
        self.conv1, self.conv2 = conv(3, c[0], 11, 4), conv(c[0], c[1], 5, 1, 2, groups=towers)
        self.conv3, self.conv4 = conv(c[1], c[2], 3, 1, 1), conv(c[2], c[3], 3, 1, 1, groups=towers)
        self.conv5 = conv(c[3], c[4], 3, 1, 1, groups=towers)
        self.fc6, self.fc7, self.fc8 = (torch.nn.Linear(n, m) for n, m in ((36 * c[4], 64), (64, 64), (64, 1000)))
        lrn = torch.nn.LocalResponseNorm(5, alpha=5 * 1e-4, beta=0.75, k=2.0)  # PyTorch divides alpha by 5
        self.norm = lrn if towers == 2 else torch.nn.Identity()
        self.pool = torch.nn.MaxPool2d(3, 2)

    def features(self, x):
        x = self.pool(self.norm(torch.relu(self.conv1(x))))
        x = self.pool(self.norm(torch.relu(self.conv2(x))))
        for layer in (self.conv3, self.conv4, self.conv5):
            x = torch.relu(layer(x))
        return self.pool(x)

    def forward(self, x):
        x = torch.nn.functional.adaptive_avg_pool2d(self.features(x), 6).flatten(1)
        return self.fc8(torch.relu(self.fc7(torch.relu(self.fc6(x)))))


def bright(net):
    """Random weights that give conv1 outputs of some 100, as images of 0 to 255 do: at 1 a wrong alpha is not seen."""
    randomize(net)
    with torch.no_grad():
        net.conv1.weight.mul_(100)
    return net


@pytest.mark.parametrize("name, towers", [("alexnet", 2), ("alexnet_single", 1)])
def test_equals_the_paper_written_in_torch(name, towers, same_names):
    net = bright(Paper(towers))
    check_evaluation(name, net, [(227, 227), (193, 225)], features=lambda net, x: net.features(x), widths=(64, 64))
    net = bright(Paper(towers, narrower=4))
    check_training(name, net, (97, 113), widths=(64, 64), dropout=0.0, width=0.25)


def test_one_weird_trick_equals_torchvisions():
    net = torchvision().alexnet(weights=None)
    net.classifier[1], net.classifier[4] = torch.nn.Linear(9216, 64), torch.nn.Linear(64, 64)
    net.classifier[6] = torch.nn.Linear(64, 1000)
    net = randomize(net)
    check_evaluation("alexnet_owt", net, PARITY_SIZES, features=lambda net, x: net.features(x), widths=(64, 64))
    check_training("alexnet_owt", net, (97, 113), widths=(64, 64), dropout=0.0)


def test_caffes_form_equals_its_onnx_graph(same_names):
    """bvlc_alexnet as the onnx package ships it: the graph without its weights, which are drawn here."""
    onnx = pytest.importorskip("onnx", reason="onnx is not installed (pip install -e '.[parity]'): not run")
    from onnx.reference import ReferenceEvaluator
    from onnx.reference.op_run import OpRun

    class LRN(OpRun):
        """By the operator's definition: that of onnx 1.23 normalises as many channels as the batch has images."""

        def _run(self, x, alpha, beta, bias, size):
            near = [slice(max(0, c - (size - 1) // 2), c + size // 2 + 1) for c in range(x.shape[1])]
            sums = np.stack([np.square(x[:, channels]).sum(1) for channels in near], 1)
            return (x / (bias + alpha / size * sums) ** beta,)

    folder = pathlib.Path(onnx.__file__).parent / "backend/test/data/light"
    graph = onnx.load(folder / "light_bvlc_alexnet.onnx")
    rng, weights = np.random.default_rng(0), {}
    for tensor in graph.graph.initializer:
        shape = onnx.numpy_helper.to_array(tensor)
        name, _, rest = tensor.name.partition("_")
        if not rest.endswith("__SHAPE"):
            continue
        shape = tuple(int(64 if n == 4096 else n) for n in shape)
        scale = np.sqrt(6 / np.prod(shape[1:])) * (100 if name == "conv1" else 1) if len(shape) > 1 else 0.1
        weights[name + (".weight" if len(shape) > 1 else ".bias")] = rng.uniform(-scale, scale, shape).astype("f")
    nodes = [node for node in graph.graph.node if node.op_type not in ("ConstantOfShape", "Softmax")]
    del graph.graph.node[:], graph.graph.initializer[:]
    graph.graph.node.extend(nodes)
    feeds = {key.replace(".weight", "_w_0").replace(".bias", "_b_0"): value for key, value in weights.items()}
    images = photo((227, 227))
    inputs = {"data_0": images.transpose(0, 3, 1, 2), "OC2_DUMMY_1": np.array([1, 9216])}
    last, logits = ReferenceEvaluator(graph, new_ops=[LRN]).run(["r14", "r24"], inputs | feeds)

    fields = {"widths": (64, 64), "norm": "lrn_caffe"}
    model, variables = create_model("alexnet", **fields), from_torch("alexnet", weights, **fields)
    ends = model.apply(variables, images, train=False, method="features")
    close(ends["final"], last.transpose(0, 2, 3, 1), 1e-4)
    close(model.apply(variables, ends["final"], train=False, method="classify"), logits, 1e-4)


def initial(name):
    """Initial biases and two of the kernels: to compile all the draws would take longer than the tests."""
    model = create_model(name, width=0.25, widths=(64, 64))

    def init():
        params = flatten_dict(model.init(jax.random.key(0), jnp.zeros((1, 67, 67, 3)), train=False)["params"], sep="/")
        kept = ("bias", "conv2/kernel", "fc6/kernel")
        return {path.split("/", 1)[1]: leaf for path, leaf in params.items() if path.endswith(kept)}

    return jax.jit(init)()


def test_initialisation_of_section_5():
    params = initial("alexnet")
    for layer in ("conv2", "fc6"):
        assert params.pop(f"{layer}/kernel").std() == pytest.approx(0.01, rel=0.05)
    ones = {path for path, bias in params.items() if (bias == 1).all()}
    assert ones == {"conv2/bias", "conv4/bias", "conv5/bias", "fc6/bias", "fc7/bias"}
    assert all((params[path] == 0).all() for path in params.keys() - ones) and len(params) == 8


def test_initialisation_of_one_weird_trick_is_pytorchs():
    params = initial("alexnet_owt")
    for layer in ("conv2", "fc6"):
        kernel = params.pop(f"{layer}/kernel")
        bound = np.prod(kernel.shape[:-1]) ** -0.5
        assert 0.99 * bound < np.abs(kernel).max() <= bound
        assert kernel.std() == pytest.approx(bound / 3**0.5, rel=0.05)
    assert len(params) == 8 and all((bias == 0).all() for bias in params.values())


@pytest.mark.parametrize("name, dropped", [("alexnet", [(2, 64), (2, 32)]), ("alexnet_owt", [(2, 36 * 256), (2, 64)])])
def test_dropout_follows_the_hidden_layers_in_the_paper_and_precedes_them_in_torchvision(name, dropped):
    model, seen = create_model(name, widths=(64, 32)), []

    def note(call, args, kwargs, context):
        if isinstance(context.module, nn.Dropout):
            assert context.module.rate == 0.5 and not context.module.deterministic
            seen.append(args[0].shape)
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((2, 67, 67, 3)), train=True))
    assert seen == dropped


@pytest.mark.parametrize(
    "name, fields, smallest",
    [
        ("alexnet", {}, 67),
        ("alexnet_single", {}, 67),
        ("alexnet_owt", {}, 63),
        ("alexnet", {"pooling": "max"}, 39),
        ("alexnet", {"ceil_mode": True}, 39),
    ],
)
def test_smallest_input(name, fields, smallest):
    model = create_model(name, **fields)
    init = functools.partial(model.init, jax.random.key(0), train=False)
    variables = jax.eval_shape(init, jnp.zeros((1, smallest, smallest, 3)))
    ends = jax.eval_shape(
        functools.partial(model.apply, train=False, method="features"), variables, jnp.zeros((1, smallest, smallest, 3))
    )
    assert ends["final"].shape[1:3] == (1, 1)
    with pytest.raises(UserError, match=f"needs {smallest}x{smallest}, it is {smallest - 1}x300"):
        jax.eval_shape(init, jnp.zeros((1, smallest - 1, 300, 3)))


def test_other_fields_weights_are_refused_with_a_list():
    with pytest.raises(UserError, match=r"features\.bn1"):
        from_torch("alexnet_owt", torchvision().alexnet(weights=None).state_dict(), norm="batch")
    with pytest.raises(UserError, match=r"classifier\.1\.weight: \(4096, 9216\) in the file"):
        from_torch("alexnet_owt", torchvision().alexnet(weights=None).state_dict(), widths=(64, 64))
