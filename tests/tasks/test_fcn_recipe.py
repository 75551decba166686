"""experiments/fcn_voc.py: each net starts from the one before it, and both losses take the same steps."""

import types

import jax
import jax.numpy as jnp
import pytest
from flax.traverse_util import flatten_dict

from jaxcnn import create_model
from jaxcnn.experiment_file import load_function
from jaxcnn.train.init_from import chosen
from tests.tiny_runs import ROOT

EXPERIMENT = load_function(ROOT / "experiments" / "fcn_voc.py")


def shapes(model, size):
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, size, size, 3)), train=False))
    return types.SimpleNamespace(params=variables["params"], stats={})


def test_each_net_starts_from_the_one_before_it():
    states = {net: shapes(EXPERIMENT(net).model, 64) for net in ("32s", "16s", "8s", "8s_at_once")}
    states["vgg16"] = shapes(create_model("vgg16"), 224)
    scores = {"32s": {"final"}, "16s": {"pool4"}, "8s": {"pool3"}, "8s_at_once": {"final", "pool4", "pool3"}}
    for net, before in (("32s", "vgg16"), ("16s", "32s"), ("8s", "16s"), ("8s_at_once", "vgg16")):
        taken = chosen(states[net], states[before], EXPERIMENT(net, start="runs/before").init_from)
        fresh = {f"params/{'/'.join(path)}" for path in flatten_dict(states[net].params)} - set(taken)
        assert fresh == {f"params/head/score_{name}/{leaf}" for name in scores[net] for leaf in ("kernel", "bias")}
    assert EXPERIMENT("16s").init_from.run is None


@pytest.mark.parametrize("net, rate", [("32s", 1e-10), ("16s", 1e-12), ("8s", 1e-14), ("8s_at_once", 1e-10)])
def test_the_rates_of_a_sum_and_of_a_mean_take_the_same_steps(net, rate):
    """tests/tasks/test_segmentation.py shows that they do if these ratios hold."""
    total, mean = (EXPERIMENT(net, loss=loss) for loss in ("sum", "mean"))
    assert (total.task.reduction, mean.task.reduction) == ("sum", "mean")
    assert (total.optimizer.learning_rate, total.optimizer.momentum, total.optimizer.weight_decay) == (rate, 0.99, 5e-4)
    assert mean.optimizer.learning_rate == pytest.approx(500 * 375 * rate)
    assert mean.optimizer.learning_rate * mean.optimizer.weight_decay == pytest.approx(rate * 5e-4)
