"""Equal averages of weights: torch's swa_utils, bits of what is frozen, stop and resume in a run of seeds."""

import copy
import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.errors import UserError
from jaxcnn.runs.restore import load_run
from jaxcnn.runs.run_directory import open_run
from jaxcnn.runs.setup import make_plan
from jaxcnn.train.averages import SWA
from jaxcnn.train.duration import epochs, examples, steps
from jaxcnn.train.schedules import Constant
from jaxcnn.train.state import Average
from tests.runs.test_seeds import make, metrics, train

close = functools.partial(np.testing.assert_allclose, rtol=1e-6)


@pytest.mark.parametrize("statistics", ["average", "copy"])
def test_swa_is_torchs(statistics):
    """With weights after steps 5, 7, 9, 11 of 12; before the first of them the average is the raw net."""
    from tests.models.parity import torch

    swa = SWA(start=steps(5), every=steps(2), statistics=statistics)
    draws = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
    net = torch.nn.Linear(4, 1, bias=False)
    averaged = torch.optim.swa_utils.AveragedModel(copy.deepcopy(net))
    average = Average({"w": jnp.zeros(4)}, {"mean": jnp.zeros(4)}, jnp.int32(0))
    update = jax.jit(lambda average, weights, step: swa.update(average, {"w": weights}, {"mean": -weights}, (), step))
    for step, weights in enumerate(draws):
        average = update(average, weights, jnp.int32(step))
        with torch.no_grad():
            net.weight[0] = torch.tensor(weights)
        if step + 1 in (5, 7, 9, 11):
            averaged.update_parameters(net)
        expected = averaged.module.weight[0].detach().numpy() if step + 1 >= 5 else weights
        close(average.params["w"], expected)
        close(average.stats["mean"], -weights if statistics == "copy" else -expected)
    assert int(average.count) == 4


def test_what_never_moved_keeps_its_bits():
    swa, weights = SWA(start=steps(1), every=steps(1)), {"w": jnp.array([-0.0, 0.1, 1 / 3])}
    average = Average(weights, {}, jnp.int32(0))
    for step in range(7):
        average = swa.update(average, weights, {}, (), jnp.int32(step))
    assert int(average.count) == 7 and np.asarray(average.params["w"]).tobytes() == np.asarray(weights["w"]).tobytes()


def test_seeds_with_swa_stop_and_resume_to_the_bit_and_are_evaluated_beside_the_raw_net(tmp_path):
    fields = {"schedule": Constant(), "duration": steps(14), "ema": SWA(start=examples(6 * 16), every=steps(4))}
    experiments = [make(seed, **fields) for seed in (0, 1)]
    whole, stopped = ([tmp_path / f"{name}{seed}" for seed in (0, 1)] for name in ("whole", "stopped"))
    train(whole, experiments)
    asked = itertools.chain([False] * 9, [True], itertools.repeat(False))
    outcomes, _ = train(stopped, experiments, lambda: next(asked))
    assert [outcome.state for outcome in outcomes] == ["preempted"] * 2
    train(stopped, experiments)
    for seed in (0, 1):
        ours, theirs = (load_run(paths[seed]).state for paths in (whole, stopped))
        assert int(ours.average.count) == 3  # after steps 6, 10 and 14
        for a, b in zip(jax.tree.leaves(ours.average), jax.tree.leaves(theirs.average), strict=True):
            np.testing.assert_array_equal(a, b)
        assert metrics(whole[seed]) == metrics(stopped[seed])
        lines = {(line["step"], line["split"]): line for line in metrics(whole[seed]) if "epoch" not in line}
        same = [lines[step, "train[90%:]"]["loss"] == lines[step, "train[90%:]_ema"]["loss"] for step in (6, 12)]
        assert same == [True, False]
        assert {"test", "test_ema"} <= open_run(whole[seed]).result().keys()


def test_mistakes_are_one_sentence():
    for field in ("start", "every"):
        with pytest.raises(UserError, match=rf"ema\.{field} is 0"):
            SWA(**{"start": epochs(1), field: epochs(0)})
    with pytest.raises(UserError, match="ema is the class SWA"):
        make(0, ema=SWA)
    late = dataclasses.replace(make(0), ema=SWA(start=epochs(99)))
    assert "ema averages from step 446 on, and the run ends at step 24" in " ".join(make_plan(late).warnings())
