"""The same run on 1, 2, 4 and 8 devices: the same batches, the same losses, the same evaluation count."""

import numpy as np
import pytest

from tests.runs import TINY, call, finish, kill_when, metrics, read, start


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


def test_a_run_goes_on_with_another_number_of_devices(one, tmp_path):
    run = tmp_path / "run"
    flags = ["--workdir", run, "--duration", "40steps", "--log-every", "1steps"]
    kill_when(start(TINY, *flags, devices=4), lambda: (run / "checkpoints" / "15").is_dir())
    assert "resumed at step" in finish(TINY, *flags, devices=2).stdout
    losses = [[line["loss"] for line in metrics(each)] for each in (run, one)]
    np.testing.assert_allclose(*losses, atol=1e-5)


def test_a_batch_that_does_not_divide_is_refused_with_one_that_does(tmp_path):
    done = call(TINY, "--workdir", tmp_path / "run", "--data.batch-size", "36", devices=8)
    assert done.returncode == 2
    assert "data.batch_size is 36, which does not divide over 8 devices times accumulate=2; try 32" in done.stderr
    assert not (tmp_path / "run").exists()
