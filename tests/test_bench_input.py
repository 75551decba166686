"""`jaxcnn bench-input` names the stage that is slow, whichever it is."""

import dataclasses
import json
import time

import numpy as np
import pytest

from jaxcnn import create_model
from jaxcnn.__main__ import main
from jaxcnn.data import jpeg, pipeline
from jaxcnn.data.folder import Folder, FolderExamples
from jaxcnn.data.synthetic import Synthetic
from jaxcnn.data.transforms import HorizontalFlip, RandomResizedCrop, Resize
from jaxcnn.errors import UserError
from jaxcnn.experiment import Data, Experiment
from jaxcnn.runs import bench_input as bench
from jaxcnn.runs.bench_input import HOST, bench_input
from jaxcnn.runs.setup import make_plan
from jaxcnn.runs.stepper import Single
from tests.data.test_encoded import jpeg_of, photo

SLOW = 0.03
"""Seconds that a slowed stage takes longer per image: a hundred times what all others take."""
BATCH = 4


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for name in ("a", "b"):
        (folder / name).mkdir()
        for number in range(4):
            (folder / name / f"{number}.jpg").write_bytes(jpeg_of(photo(40 + number, 40)))
    augment = (RandomResizedCrop(8), HorizontalFlip())
    data = Data(
        (8, 8, 3),
        Folder(str(folder)),
        "train",
        evaluation_splits=(),
        test_splits=(),
        augment=augment,
        preprocess=(Resize((8, 8)),),
        batch_size=BATCH,
        memory_limit=0,
    )
    return Experiment(create_model("linear", classes=2), data)


@pytest.fixture(scope="module")
def stepper(experiment):
    """The run's own, whose step is compiled once for all tests."""
    made = Single(make_plan(experiment))
    compiled = made.lower_train()()
    made.lower_train = lambda: lambda: compiled
    return made


def slowed(call, images=1):
    def slow(*args, **options):
        time.sleep(SLOW * images)
        return call(*args, **options)

    return slow


class SlowFlip(HorizontalFlip):
    def __call__(self, image, rng):
        time.sleep(SLOW)
        return super().__call__(image, rng)


@pytest.mark.parametrize("stage", [*HOST, "transfer", "step"])
def test_a_slowed_stage_is_named(stage, experiment, stepper, monkeypatch):
    own = stepper
    if stage == "read":
        monkeypatch.setattr(FolderExamples, "encoded", slowed(FolderExamples.encoded))
    elif stage == "decode":
        monkeypatch.setattr(jpeg, "pixels_of", slowed(jpeg.pixels_of))
    elif stage == "augment":
        augment = (RandomResizedCrop(8), SlowFlip())
        experiment = dataclasses.replace(experiment, data=dataclasses.replace(experiment.data, augment=augment))
    elif stage == "batch":
        monkeypatch.setattr(pipeline, "_empty", slowed(pipeline._empty, BATCH))
    elif stage == "transfer":
        monkeypatch.setattr(own, "put", slowed(own.put, 2 * BATCH))
    else:
        compiled = own.lower_train()()
        slow = dataclasses.replace(compiled, call=slowed(compiled.call, 2 * BATCH))
        monkeypatch.setattr(own, "lower_train", lambda: lambda: slow)
    found = bench_input(experiment, seconds=0, stepper=own)
    assert found.bottleneck == stage
    assert found.verdict().startswith(f"{stage}: ")
    rates = found.stages | {"transfer": found.transfer, "step": found.step}
    assert rates[stage] == min(rates.values())
    assert found.expected <= min(found.host, found.transfer, found.step) * (1 + 1e-9)
    if stage in HOST:  # what a stage alone does is no more than that on all readers
        assert rates[stage] < found.readers / SLOW and "the step needs" in found.verdict()


def test_a_stage_within_another_is_counted_once(monkeypatch):
    now = iter([0, 1, 3, 7, 8, 20])
    monkeypatch.setattr(bench, "clock", lambda: next(now))
    clocks = bench._Clocks()
    with clocks.during("batch"), clocks.during("augment"), clocks.during("read"):
        pass
    assert clocks.seconds == {"batch": 1 + 12, "augment": 2 + 1, "read": 4, "decode": 0}


def test_in_memory_nothing_is_read_or_decoded(experiment, stepper):
    made = Data((8, 8, 3), Synthetic((8, 8, 3), train=16, classes=2), "train", (), (), batch_size=BATCH)
    found = bench_input(dataclasses.replace(experiment, data=made), seconds=0, stepper=stepper)
    assert found.stages["read"] is found.stages["decode"] is found.stages["augment"] is None
    assert found.stages["batch"] and found.readers == 1 and np.isfinite(found.host)
    slow = dataclasses.replace(found, bottleneck="batch")
    assert " images/s on 1 thread, " in slow.verdict()
    assert " images/s on 4 threads, " in dataclasses.replace(slow, readers=4).verdict()


def test_the_command_prints_a_table_or_json(capsys):
    file = "experiments/linear_digits.py"
    assert main(["bench-input", file, "--debug", "--seconds", "0", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told["stages"]) == set(HOST) and told["verdict"].startswith(told["bottleneck"])
    assert main(["bench-input", file, "--debug", "--seconds", "0"]) == 0
    said = capsys.readouterr().out
    assert "bottleneck: " in said and "to be expected" in said and "alone, on 1 thread " in said


@pytest.mark.parametrize("seconds", [-1, float("nan")])
def test_a_time_that_is_none_is_refused(experiment, seconds):
    with pytest.raises(UserError, match=r"seconds is (-1|nan); it is how long each figure is measured"):
        bench_input(experiment, seconds=seconds)
