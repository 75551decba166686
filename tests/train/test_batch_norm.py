"""Batch norm over groups of examples: each group as if it were alone, whatever net it is in."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxcnn.data.synthetic import Synthetic
from jaxcnn.errors import UserError
from jaxcnn.experiment import Data, Experiment
from jaxcnn.models import create_model
from jaxcnn.runs.debug import debug
from jaxcnn.train.batch_norm import check_group, grouped
from jaxcnn.train.mesh import Parallel, make_mesh
from tests.nets import TinyNet

IMAGES = jax.random.normal(jax.random.key(1), (8, 16, 16, 3))


def test_groups_are_normalised_apart_and_running_statistics_move_by_their_mean():
    model = create_model("resnet20_cifar", depth=(1, 1, 1), width=0.5)
    variables = model.init(jax.random.key(0), IMAGES, train=False)
    apply = lambda images: model.apply(variables, images, train=True, mutable=["batch_stats"])  # noqa: E731
    with grouped(4):
        logits, updated = apply(IMAGES)
    alone = [apply(IMAGES[start : start + 4]) for start in (0, 4)]
    np.testing.assert_allclose(logits, np.concatenate([y for y, _ in alone]), atol=1e-5)
    means = jax.tree.map(lambda a, b: (a + b) / 2, *(stats for _, stats in alone))
    jax.tree.map(lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6), updated, means)
    assert np.abs(logits - apply(IMAGES)[0]).max() > 1e-3  # the whole batch has other statistics
    assert jax.tree.structure(updated["batch_stats"]) == jax.tree.structure(variables["batch_stats"])


def test_evaluation_is_left_alone():
    model = create_model("resnet20_cifar", depth=(1, 1, 1), width=0.5)
    variables = model.init(jax.random.key(0), IMAGES, train=False)
    with grouped(3):  # would not divide
        logits = model.apply(variables, IMAGES, train=False)
    np.testing.assert_array_equal(logits, model.apply(variables, IMAGES, train=False))


@pytest.mark.parametrize(
    "group, batch, accumulate, message",
    [(5, 32, 1, "does not divide 32; try 4"), (16, 32, 4, "a microbatch of 8"), (0, 32, 1, "try 1 or global")],
)
def test_groups_that_do_not_fill_a_microbatch_are_refused(group, batch, accumulate, message):
    with pytest.raises(UserError, match=message):
        check_group(group, batch, accumulate)
    check_group("global", batch, accumulate)


def test_debug_shrinks_groups_and_sharding_to_what_fits():
    data = Data((9, 9, 3), source=Synthetic((9, 9, 3), classes=4))
    made = Experiment(TinyNet(), data, accumulate=2, bn_group=48, parallel=Parallel(data=8, fsdp=4))
    small = debug(made)
    check_group(small.bn_group, small.data.batch_size, small.accumulate)
    assert small.bn_group == 4 and make_mesh(small.parallel).size == 1


def test_gradients_of_a_group_do_not_see_the_others():
    model = create_model("resnet20_cifar", depth=(1, 1, 1), width=0.5)
    variables = model.init(jax.random.key(0), IMAGES, train=False)

    def first_logit(images):
        with grouped(4):
            return model.apply(variables, images, train=True, mutable=["batch_stats"])[0][0, 0]

    gradient = jnp.abs(jax.grad(first_logit)(IMAGES)).sum((1, 2, 3))
    assert (gradient[:4] > 0).all() and (gradient[4:] == 0).all()


class Own(nn.Module):
    """A net that says to batch norm itself what a call may say: in a user's own code that is common."""

    how: str

    @nn.compact
    def __call__(self, x, *, train):
        norm = nn.BatchNorm(name="bn", use_running_average=None if self.how != "field" else not train)
        mask = jnp.arange(x.shape[0])[:, None, None, None] % 2 == 0
        return {
            "field": lambda: norm(x),
            "keyword": lambda: norm(x, use_running_average=not train),
            "positional": lambda: norm(x, not train),
            "all keywords": lambda: norm(x=x, use_running_average=not train),
            "mask": lambda: norm(x, use_running_average=not train, mask=jnp.broadcast_to(mask, x.shape)),
        }[self.how]()


@pytest.mark.parametrize("how", ["field", "keyword", "positional", "all keywords", "mask"])
def test_what_a_call_of_batch_norm_is_told_reaches_its_groups(how):
    model = Own(how)
    variables = model.init(jax.random.key(0), IMAGES, train=False)
    apply = lambda images: model.apply(variables, images, train=True, mutable=["batch_stats"])  # noqa: E731
    with grouped(4):
        y, updated = apply(IMAGES)
        evaluated = model.apply(variables, IMAGES, train=False)
    alone = [apply(IMAGES[start : start + 4]) for start in (0, 4)]
    np.testing.assert_allclose(y, np.concatenate([part for part, _ in alone]), atol=1e-5)
    means = jax.tree.map(lambda a, b: (a + b) / 2, *(stats for _, stats in alone))
    jax.tree.map(lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6), updated, means)
    np.testing.assert_array_equal(evaluated, model.apply(variables, IMAGES, train=False))
