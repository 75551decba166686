"""The same run on 1, 2, 4 and 8 devices, however it is spread: the same batches, losses and evaluation."""

import numpy as np
import pytest

from tests.many_devices import CASES, cases, name_of
from tests.tiny_runs import TINY, call, finish, kill_when, metrics, read, start


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    run = tmp_path_factory.mktemp("one") / "run"
    finish(TINY, "--workdir", run, "--duration", "40steps", "--log-every", "1steps")
    return run


@pytest.mark.parametrize("devices", [2, 4, 8])
def test_losses_and_evaluation_do_not_depend_on_the_number_of_devices(devices, one, tmp_path):
    run = tmp_path / "run"
    finish(TINY, "--workdir", run, "--duration", "40steps", "--log-every", "1steps", devices=devices)
    assert read(run, "environment.json")["devices"]["count"] == devices
    ours, theirs = metrics(run), metrics(one)
    assert [(line["step"], line["split"], line["count"]) for line in ours] == [
        (line["step"], line["split"], line["count"]) for line in theirs
    ]
    losses = [[line["loss"] for line in lines] for lines in (ours, theirs)]
    np.testing.assert_allclose(*losses, atol=1e-5)
    assert losses[0][39] < losses[0][0]
    assert read(run, "result.json")["test"]["count"] == read(one, "result.json")["test"]["count"] == 50


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many")
    finish(folder, module="tests.many_devices", devices=8, optimized=False)
    return read(folder, "runs.json")


@pytest.mark.parametrize(
    "devices, fsdp, case", [case for case in cases() if case[0] > 1], ids=lambda value: str(value).replace(" ", "")
)
def test_sharding_accumulation_and_batch_norm_groups_are_the_same_on_many_devices(devices, fsdp, case, many):
    accumulate, group = case
    ours = many[name_of(devices, fsdp, accumulate, group)]
    theirs = many[name_of(1, False, accumulate, group)]
    assert ("fsdp" in ours["spec"]) == fsdp
    np.testing.assert_allclose(ours["losses"], theirs["losses"], atol=1e-5)
    assert len(ours["losses"]) == 20 and ours["losses"][-1] < 0.8 * ours["losses"][0]
    for split in ("test", "test_ema"):
        assert ours[split]["count"] == theirs[split]["count"] == 50
        assert ours[split] == pytest.approx(theirs[split], abs=1e-5)


def test_what_is_frozen_keeps_its_bits_for_100_steps_on_8_devices(many):
    """On one device: tests/train/test_groups.py."""
    kept = {name for name, same in many["frozen"].items() if same}
    assert kept == {"conv1/kernel", "conv1/bias"} and len(many["frozen"]) > 4


def test_each_device_draws_its_own_part_of_the_initial_state(many):
    ours = many["initial"]
    assert ours["same"] and ours["split"] > 1 and ours["exchanges"] == 0


def test_what_fine_tuning_asks_of_a_step_is_the_same_on_many_devices(many):
    """SAM, rates by layer, a layer that is released, SWA with statistics of its own, clipping and microbatches."""
    ours, theirs = many["8-tuned"], many["1-tuned"]
    assert "fsdp" in ours["spec"] and "fsdp" not in theirs["spec"]
    np.testing.assert_allclose(ours["losses"], theirs["losses"], atol=1e-5)
    assert theirs["losses"][-1] < 0.9 * theirs["losses"][0]
    for split in ("test", "test_ema"):
        assert ours[split] == pytest.approx(theirs[split], abs=1e-5)
    assert theirs["test"]["loss"] != pytest.approx(theirs["test_ema"]["loss"], abs=1e-3)


def test_several_steps_in_a_call_are_the_same_on_many_devices(many):
    ours, theirs = many["8-several"], many[name_of(1, False, 1, "global")]
    assert "fsdp" in ours["spec"]
    np.testing.assert_allclose(ours["losses"], np.reshape(theirs["losses"], (5, 4)).mean(1), atol=1e-5)
    for split in ("test", "test_ema"):
        assert ours[split] == pytest.approx(theirs[split], abs=1e-5)


def test_groups_of_batch_norm_and_microbatches_do_make_a_difference(many):
    """Else the test above would compare nothing."""
    losses = [many[name_of(1, False, *case)]["losses"][-1] for case in CASES[1]]
    assert min(np.diff(sorted(losses))) > 1e-3


def test_a_run_goes_on_with_another_number_of_devices_and_other_sharding(one, tmp_path):
    run = tmp_path / "run"
    flags = ["--workdir", run, "--duration", "40steps", "--log-every", "1steps", "--parallel.shard-above", "1"]
    kill_when(start(TINY, *flags, "--parallel.fsdp", "2", devices=4), lambda: (run / "checkpoints" / "15").is_dir())
    assert "resumed at step" in finish(TINY, *flags, devices=2).stdout
    (resumed,) = read(run, "environment.json")["resumed"]
    assert (read(run, "environment.json")["free"]["parallel.fsdp"], resumed["free"]["parallel.fsdp"]) == (2, 1)
    losses = [[line["loss"] for line in metrics(each)] for each in (run, one)]
    np.testing.assert_allclose(*losses, atol=1e-5)


def test_a_batch_that_does_not_divide_is_refused_with_one_that_does(tmp_path):
    done = call(TINY, "--workdir", tmp_path / "run", "--data.batch-size", "36", devices=8)
    assert done.returncode == 2
    assert "data.batch_size is 36, which does not divide over 8 devices times accumulate=2; try 32" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--parallel.fsdp", "3"], "do not fit 4 devices; try --parallel.data -1 --parallel.fsdp 1"),
        (["--parallel.data", "4", "--parallel.fsdp", "2"], "do not fit 4 devices; try --parallel.data -1"),
        (["--parallel.fsdp", "0"], "parallel.fsdp 0; at least 1"),
        (["--bn-group", "3"], "bn_group is 3, which does not divide a microbatch of 8"),
    ],
)
def test_what_does_not_fit_the_devices_is_refused_with_what_does(flags, message, tmp_path):
    done = call(TINY, "--workdir", tmp_path / "run", *flags, devices=4)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
