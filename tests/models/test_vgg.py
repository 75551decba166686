"""VGG against torchvision's, with random weights."""

import pytest

from tests.models.parity import check_evaluation, check_training, randomize, torch, torchvision

NAMES = ["vgg11", "vgg13", "vgg16", "vgg19", "vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn"]


def narrow(name):
    """torchvision's net with hidden FC layers of 64 instead of 4096: 100 M weights would be most of the test's time."""
    net = getattr(torchvision(), name)(weights=None, init_weights=False)
    net.classifier[0], net.classifier[3] = torch.nn.Linear(25088, 64), torch.nn.Linear(64, 64)
    net.classifier[6] = torch.nn.Linear(64, 1000)
    return randomize(net)


@pytest.mark.parametrize("name", NAMES)
def test_vgg_equals_torchvisions(name):
    net = narrow(name)
    check_evaluation(name, net, [(224, 224), (193, 225)], features=lambda net, x: net.features(x), widths=(64, 64))
    check_training(name, net, (97, 113), widths=(64, 64), dropout=0.0)
