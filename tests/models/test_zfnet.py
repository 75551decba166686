"""ZFNet against the paper's net written in torch, with random weights; hidden FC layers are 64 wide instead of 4096."""

import functools

import jax
import jax.numpy as jnp
import pytest
from flax.traverse_util import flatten_dict

from jaxcnn.errors import UserError
from jaxcnn.models import create_model
from jaxcnn.models.pretrained import REFERENCES, Reference
from jaxcnn.models.zfnet import ZFNet
from tests.models.parity import PARITY_SIZES, check_evaluation, check_training, randomize, torch

WIDTHS = {"zfnet": (96, 256, 384, 384, 256), "zfnet_wide": (96, 256, 512, 1024, 512)}


class Paper(torch.nn.Module):
    """Figure 3: in layers 1 and 2 rectified, pooled, then contrast normalised."""

    def __init__(self, widths):
        super().__init__()
        c, conv = widths, torch.nn.Conv2d
        self.conv1, self.conv2, self.conv3 = conv(3, c[0], 7, 2, 1), conv(c[0], c[1], 5, 2), conv(c[1], c[2], 3, 1, 1)
        self.conv4, self.conv5 = conv(c[2], c[3], 3, 1, 1), conv(c[3], c[4], 3, 1, 1)
        self.fc6, self.fc7, self.fc8 = (torch.nn.Linear(n, m) for n, m in ((36 * c[4], 64), (64, 64), (64, 1000)))
        self.pool = torch.nn.MaxPool2d(3, 2, ceil_mode=True)
        self.norm = torch.nn.LocalResponseNorm(5, alpha=5 * 1e-4, beta=0.75, k=2.0)  # PyTorch divides alpha by 5

    def features(self, x):
        x = self.norm(self.pool(torch.relu(self.conv1(x))))
        x = self.norm(self.pool(torch.relu(self.conv2(x))))
        x = torch.relu(self.conv4(torch.relu(self.conv3(x))))
        return self.pool(torch.relu(self.conv5(x)))

    def forward(self, x):
        x = torch.nn.functional.adaptive_avg_pool2d(self.features(x), 6).flatten(1)
        return self.fc8(torch.relu(self.fc7(torch.relu(self.fc6(x)))))


def bright(net):
    """Random weights that give conv1 outputs of some 100, as images of 0 to 255 do: at 1 a wrong alpha is not seen."""
    randomize(net)
    with torch.no_grad():
        net.conv1.weight.mul_(100)
    return net


@pytest.mark.parametrize("name", WIDTHS)
def test_equals_the_paper_written_in_torch(name, monkeypatch):
    monkeypatch.setitem(REFERENCES, ZFNet, {"same": Reference(lambda model, path: path.split("/")[1])})
    net, sizes = bright(Paper(WIDTHS[name])), PARITY_SIZES if name == "zfnet" else [(224, 224)]
    check_evaluation(name, net, sizes, features=lambda net, x: net.features(x), widths=(64, 64))
    net = bright(Paper([width // 8 for width in WIDTHS[name]]))
    check_training(name, net, (97, 113), widths=(64, 64), dropout=0.0, width=0.125)


@pytest.mark.parametrize("name", WIDTHS)
def test_maps_have_the_sizes_of_figure_3(name):
    model = create_model(name)
    images = jnp.zeros((1, 224, 224, 3))
    ends = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), images, train=False, method="features")[0])
    sizes = [(end.shape[1], end.shape[3]) for end in ends.values()]
    assert sizes == [*zip((110, 26, 13, 13, 13), WIDTHS[name], strict=True), (6, WIDTHS[name][-1])]


def test_initialisation():
    model = create_model("zfnet", width=0.25, widths=(64, 64))

    def init():  # one kernel only: to compile all the draws would take longer than the test
        params = flatten_dict(model.init(jax.random.key(0), jnp.zeros((1, 63, 63, 3)), train=False)["params"], sep="/")
        return {path: leaf for path, leaf in params.items() if path.endswith(("bias", "conv3/kernel"))}

    params = jax.jit(init)()
    assert params.pop("backbone/conv3/kernel").std() == pytest.approx(0.01, rel=0.05)
    assert len(params) == 8 and all((bias == 0).all() for bias in params.values())


@pytest.mark.parametrize("fields, smallest", [({}, 47), ({"pooling": "average"}, 47)])
def test_smallest_input(fields, smallest):
    model = create_model("zfnet", **fields)
    init = functools.partial(model.init, jax.random.key(0), train=False)
    images = jnp.zeros((1, smallest, smallest, 3))
    variables = jax.eval_shape(init, images)
    ends = jax.eval_shape(functools.partial(model.apply, train=False, method="features"), variables, images)
    assert ends["final"].shape[1:3] == (1, 1)
    with pytest.raises(UserError, match=f"needs {smallest}x{smallest}, it is 300x{smallest - 1}"):
        jax.eval_shape(init, jnp.zeros((1, 300, smallest - 1, 3)))
