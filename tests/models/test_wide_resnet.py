"""Wide residual nets beside the same net written in PyTorch, as the authors have it."""

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import jaxcnn as jc
from tests.compilation import quick
from tests.models.parity import torch


def reference(arrays, images):
    """WRN-10-k by the authors' code (models/wide-resnet.lua), from our arrays, in evaluation."""
    functional = torch.nn.functional

    def norm_relu(x, name):
        scale, bias = arrays[f"params/{name}/scale"], arrays[f"params/{name}/bias"]
        mean, variance = arrays[f"batch_stats/{name}/mean"], arrays[f"batch_stats/{name}/var"]
        return functional.relu(functional.batch_norm(x, mean, variance, scale, bias, eps=1e-5))

    def convolved(x, name, stride=1, padding=1):
        return functional.conv2d(x, arrays[f"params/{name}/kernel"].permute(3, 2, 0, 1), None, stride, padding)

    x = convolved(images.permute(0, 3, 1, 2), "conv")
    for stage in (1, 2, 3):
        name, stride = f"layer{stage}_0", 1 if stage == 1 else 2
        x = norm_relu(x, f"{name}/norm1")
        branch = norm_relu(convolved(x, f"{name}/conv1", stride), f"{name}/norm2")
        x = convolved(branch, f"{name}/conv2") + convolved(x, f"{name}/shortcut", stride, 0)
    return norm_relu(x, "norm").permute(0, 2, 3, 1)


def test_a_wide_net_computes_what_the_authors_code_does():
    net, rng = jc.WideResNet(depth=10, widening=1.5), np.random.default_rng(0)
    images = rng.normal(size=(2, 16, 16, 3)).astype(np.float32)
    variables = jax.eval_shape(lambda: net.init(jax.random.key(0), images, train=False))
    variables = jax.tree.map(lambda leaf: rng.uniform(0.1, 0.3, leaf.shape).astype(np.float32), variables)
    ours = quick(lambda variables, images: net.apply(variables, images, train=False)["final"])(variables, images)
    arrays = {path: torch.from_numpy(array) for path, array in flatten_dict(variables, sep="/").items()}
    theirs = reference(arrays, torch.from_numpy(images)).numpy()
    assert ours.shape == (2, 4, 4, 96)
    np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=1e-5 * np.abs(theirs).max())


def test_a_block_of_one_width_adds_to_what_it_was_given_and_drops_between_its_convolutions():
    net, images = jc.WideResNet(depth=16, widening=0.5, dropout=0.3), np.ones((2, 8, 8, 3), np.float32)
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), images, train=False))
    blocks = {name for name, layer in shapes["params"].items() if "shortcut" in layer}
    assert blocks == {f"layer{stage}_0" for stage in (1, 2, 3)}
    variables = jax.tree.map(lambda leaf: np.random.default_rng(0).normal(size=leaf.shape).astype(np.float32), shapes)
    apply = lambda key: net.apply(variables, images, train=True, rngs={"dropout": key}, mutable=["batch_stats"])  # noqa: E731
    run = quick(lambda key: apply(key)[0])
    one, same, other = (run(jax.random.key(key)) for key in (1, 1, 2))
    np.testing.assert_array_equal(one["final"], same["final"])
    assert np.abs(one["final"] - other["final"]).max() > 0
    np.testing.assert_array_equal(one["stage1"], other["stage1"])


@pytest.mark.parametrize("depth", [4, 18, 20])
def test_a_depth_that_the_stages_cannot_share_is_refused(depth):
    with pytest.raises(jc.UserError, match=f"depth is {depth}; it must be 6 n \\+ 4"):
        jax.eval_shape(
            lambda: jc.WideResNet(depth=depth).init(jax.random.key(0), np.ones((1, 8, 8, 3), np.float32), train=False)
        )
