"""Steps that are not finite, through the front door: stopped or skipped, recorded, and computed again."""

import json

import pytest

from tests.tiny_runs import TINY, call, finish, metrics, read


def replayed(run, step):
    return json.loads(finish("replay", run, "--step", step, "--json", module="jaxcnn").stdout)


def test_a_step_of_a_good_run_is_the_same_to_the_bit(tmp_path):
    run = tmp_path / "run"
    finish(TINY, "--workdir", run, "--duration", "40steps", "--log-every", "1steps")
    line = next(line for line in metrics(run) if line["step"] == 34)
    found = replayed(run, 34)
    assert found["from"] == 30 and found["finite"] and len(set(found["examples"])) == 16
    assert (float(found["loss"]), float(found["grad_norm"])) == (line["loss"], line["grad_norm"])
    done = call("replay", run, "--step", "41", module="jaxcnn")
    assert done.returncode == 1 and "steps 1 to 40; there is no step 41" in done.stderr


@pytest.mark.parametrize("skip", [0, 2])
def test_bad_steps_are_skipped_then_stop_the_run_and_replay_gives_the_same_numbers(skip, tmp_path):
    run = tmp_path / "run"
    flags = ["--workdir", run, "--optimizer.lr", "1e30", "--log-every", "5steps", "--skip-bad-steps", skip]
    done = call(TINY, *flags)
    status = read(run, "status.json")
    last = 2 + skip  # the first update throws the weights far out
    assert done.returncode == 1 and status["state"] == "diverged" and status["step"] == last
    assert "Traceback" not in done.stderr and f"--step {last}" in done.stderr and len(status["examples"]) == 16
    found = replayed(run, last)
    assert found["loss"] == found["recorded"] == status["loss"] and found["grad_norm"] == status["grad_norm"]
    assert not found["finite"] and found["examples"] == status["examples"]
    skipped = run / "skipped.jsonl"
    lines = [json.loads(line) for line in skipped.read_text().splitlines()] if skipped.exists() else []
    assert [line["step"] for line in lines] == list(range(2, last))
    if lines:
        assert replayed(run, 2)["recorded"] == lines[0]["loss"] == replayed(run, 2)["loss"]


def test_fit_batch_finds_the_largest_batch_without_running(tmp_path):
    arguments = [
        "fit-batch",
        TINY,
        "--memory",
        "200KiB",
        "--json",
        "--data.source.train",
        "100000",
        "--optimizer.lr",
        "0.2",
    ]
    found = json.loads(finish(*arguments, module="jaxcnn").stdout)
    size, needed = found["batch_size"], {int(size): need for size, need in found["needed"].items()}
    assert size % 2 == 0 and needed[size] <= 200 * 2**10 < needed[size + 2]
    done = call("fit-batch", TINY, "--memory", "1KiB", module="jaxcnn")
    assert done.returncode == 1 and "not even a batch of 2 fits: it needs" in done.stderr and "1.0 KiB" in done.stderr
