"""VGG against torchvision's and timm's, with random weights."""

import jax
import numpy as np
import pytest

from jaxcnn.models.pretrained import from_torch
from tests.models.parity import PARITY_SIZES, check_evaluation, check_training, randomize, timm, torch, torchvision
from tests.slow import WANTED

NAMES = ["vgg11", "vgg13", "vgg16", "vgg19", "vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn"]


def narrow(name):
    """torchvision's net with hidden FC layers of 64 instead of 4096: 100 M weights would be most of the test's time."""
    with torch.device("meta"):  # where nothing is drawn that is drawn anew, or thrown away, below
        net = getattr(torchvision(), name)(weights=None, init_weights=False)
    net.features.to_empty(device="cpu")
    net.classifier[0], net.classifier[3] = torch.nn.Linear(25088, 64), torch.nn.Linear(64, 64)
    net.classifier[6] = torch.nn.Linear(64, 1000)
    return randomize(net)


@pytest.mark.parametrize("name", NAMES)
def test_vgg_equals_torchvisions(name):
    """At the large size those of the fewest layers; the others have more of the same ones."""
    net = narrow(name)
    sizes = PARITY_SIZES if WANTED or name.startswith("vgg11") else [(97, 129)]
    check_evaluation(name, net, sizes, features=lambda net, x: net.features(x), widths=(64, 64))
    check_training(name, net, (33, 65), widths=(64, 64), dropout=0.0)


def test_vgg_equals_timms():
    """timm's hidden layers are convolutions, of 7x7 and 1x1, and its net takes the grid from the map as it is."""
    net = timm().create_model("vgg11_bn", pretrained=False, num_classes=9)
    head = net.pre_logits
    head.fc1, head.fc2 = torch.nn.Conv2d(512, 64, 7), torch.nn.Conv2d(64, 64, 1)
    net.head.fc = torch.nn.Linear(64, 9)
    net = randomize(net)
    assert "pre_logits.fc1.weight" in net.state_dict()
    check_evaluation("vgg11_bn", net, [(224, 224)], classes=9, widths=(64, 64))


def test_converted_weights_share_no_memory_with_torchs():
    """A later step in torch changes nothing of ours: neither of what is transposed nor of what is taken as it is."""
    net = narrow("vgg11_bn")
    given = net.state_dict()
    for weights in (given, {key: tensor.numpy() for key, tensor in given.items()}):
        leaves = jax.tree.leaves(from_torch("vgg11_bn", weights, widths=(64, 64)))
        before = [leaf.copy() for leaf in leaves]
        for leaf in leaves:
            assert not any(np.shares_memory(leaf, tensor.numpy()) for tensor in given.values())
        with torch.no_grad():
            for tensor in given.values():
                tensor.add_(1)
        assert all(map(np.array_equal, leaves, before))
