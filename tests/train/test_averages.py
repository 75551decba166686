"""Equal averages of weights: torch's swa_utils, bits of what is frozen, stop and resume in a run of seeds."""

import copy
import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.data.transforms import UNIT
from jaxcnn.errors import UserError
from jaxcnn.runs.initial_state import initial_state, optimizer_of
from jaxcnn.runs.member import train_batches
from jaxcnn.runs.program import statistics_step
from jaxcnn.runs.restore import load_run
from jaxcnn.runs.run_directory import open_run
from jaxcnn.runs.setup import make_plan
from jaxcnn.runs.warnings import warnings_of
from jaxcnn.train.averages import SWA
from jaxcnn.train.duration import epochs, examples, steps
from jaxcnn.train.optimizers import SAM, SGD
from jaxcnn.train.schedules import Constant
from jaxcnn.train.state import Average
from tests.compilation import quick
from tests.runs.test_seeds import make, metrics, train

close = np.testing.assert_allclose


def test_swa_is_torchs():
    """With weights after steps 5, 7, 9, 11 of 12; before the first of them the average is the raw net."""
    from tests.models.parity import torch

    swa = SWA(start=steps(5), every=steps(2))
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
        close(average.params["w"], expected, rtol=1e-6)
        close(average.stats["mean"], -expected, rtol=1e-6)
    assert int(average.count) == 4


def test_what_never_moved_keeps_its_bits():
    swa, weights = SWA(start=steps(1), every=steps(1)), {"w": jnp.array([-0.0, 0.1, 1 / 3])}
    average = Average(weights, {}, jnp.int32(0))
    for step in range(7):
        average = swa.update(average, weights, {}, (), jnp.int32(step))
    assert int(average.count) == 7 and np.asarray(average.params["w"]).tobytes() == np.asarray(weights["w"]).tobytes()


def test_seeds_with_swa_stop_and_resume_to_the_bit_and_are_evaluated_beside_the_raw_net(tmp_path):
    fields = {
        "schedule": Constant(),
        "duration": steps(14),
        "optimizer": SAM(SGD(0.1)),
        "layer_decay": 0.5,
        "ema": SWA(examples(6 * 16), steps(4), recompute=steps(2)),
    }
    experiments = [make(seed, **fields) for seed in (0, 1)]
    whole, stopped = ([tmp_path / f"{name}{seed}" for seed in (0, 1)] for name in ("whole", "stopped"))
    train(whole, experiments)
    asked = itertools.chain([False] * 9, [True], itertools.repeat(False))
    outcomes, _ = train(stopped, experiments, lambda: next(asked))
    assert [outcome.state for outcome in outcomes] == ["preempted"] * 2
    train(stopped, experiments)
    step = quick(statistics_step(experiments[0]))
    for seed in (0, 1):
        ours, theirs = (load_run(paths[seed]).state for paths in (whole, stopped))
        assert int(ours.average.count) == 3  # after steps 6, 10 and 14
        for a, b in zip(jax.tree.leaves(ours.average), jax.tree.leaves(theirs.average), strict=True):
            np.testing.assert_array_equal(a, b)
        plan, expected = make_plan(experiments[seed]), ours.average.stats
        own = train_batches(plan, plan.train, ())
        for number in range(2):
            batch = {name: own[number][name] for name in ("image", "label")}
            expected = step(ours.average.params, expected, np.int32(number), ours.key, {}, batch)
        jax.tree.map(functools.partial(close, rtol=1e-4, atol=1e-6), ours.average.stats, expected)
        assert metrics(whole[seed]) == metrics(stopped[seed])
        lines = {(line["step"], line["split"]): line for line in metrics(whole[seed]) if "epoch" not in line}
        assert lines[12, "train[90%:]"]["loss"] != lines[12, "train[90%:]_ema"]["loss"]
        assert {"test", "test_ema"} <= open_run(whole[seed]).result().keys()


def test_statistics_are_those_of_torchs_update_bn(tmp_path):
    """Of a run's averaged net, over its first three training batches, which are two microbatches each; torch divides a
    running variance by n - 1 and Flax by n."""
    from tests.models.parity import torch

    ema = SWA(start=steps(4), every=steps(1), recompute=steps(3))
    data = dataclasses.replace(make(0).data, evaluation_splits=(), test_splits=())
    made = make(0, ema=ema, data=data, schedule=Constant(), duration=steps(8), accumulate=2)
    train([tmp_path / "run"], [made])
    state, plan = jax.device_get(load_run(tmp_path / "run").state), make_plan(made)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, 2), torch.nn.BatchNorm2d(8))
    conv = state.average.params["conv1"]
    with torch.no_grad():
        net[0].weight[:] = torch.tensor(conv["kernel"].transpose(3, 2, 0, 1))
        net[0].bias[:] = torch.tensor(conv["bias"])
    batches = train_batches(plan, plan.train, ())
    images = [UNIT(batches[number]["image"][part::2]) for number in range(3) for part in range(2)]
    torch.optim.swa_utils.update_bn([torch.tensor(np.asarray(x).transpose(0, 3, 1, 2)) for x in images], net)
    n, (mean, variance) = 8 * 4 * 4, (net[1].running_mean.numpy(), net[1].running_var.numpy())
    ours = state.average.stats["batch_stats"]["bn1"]
    np.testing.assert_allclose(ours["mean"], mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(ours["var"], variance * (n - 1) / n, rtol=1e-4)
    assert not np.allclose(ours["var"], state.stats["batch_stats"]["bn1"]["var"], rtol=0.01)


@pytest.mark.parametrize("group", [4, "global"])
def test_statistics_of_groups_are_their_mean_and_take_no_momentum(group):
    made = make(0, bn_group=group)
    state = initial_state(made, optimizer_of(made, lambda step: jnp.float32(0)))
    examples = made.data.source.open("train")
    batch = {"image": np.stack([examples[i]["image"] for i in range(16)]), "label": np.zeros(16, np.int32)}
    step = quick(statistics_step(made))
    odd = jax.tree.map(lambda x: x + 100, state.stats)
    once = step(state.params, odd, np.int32(0), state.key, {}, batch)
    twice = step(state.params, once, np.int32(1), state.key, {}, batch)
    variables = {"params": state.params, **state.stats}
    _, seen = made.model.apply(variables, UNIT(batch["image"]), train=False, capture_intermediates=True)
    maps = np.asarray(seen["intermediates"]["conv1"]["__call__"][0]).reshape(1 if group == "global" else 4, -1, 8)
    for stats in (once, twice):
        ours = stats["batch_stats"]["bn1"]
        np.testing.assert_allclose(ours["mean"], maps.mean(1).mean(0), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(ours["var"], maps.var(1).mean(0), rtol=1e-4)


def test_mistakes_are_one_sentence():
    for field in ("start", "every"):
        with pytest.raises(UserError, match=rf"ema\.{field} is 0"):
            SWA(epochs(0) if field == "start" else epochs(1), epochs(0))
    with pytest.raises(UserError, match="ema is the class SWA"):
        make(0, ema=SWA)
    late = dataclasses.replace(make(0), ema=SWA(start=epochs(99)))
    assert "ema averages from step 446 on, and the run ends at step 24" in " ".join(warnings_of(make_plan(late)))
