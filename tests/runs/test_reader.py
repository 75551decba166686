"""Worker processes start once for a split, and not at all for what is in memory."""

import dataclasses
import io
import multiprocessing

import grain
import numpy as np
import pytest
from rich.console import Console

from jaxcnn import config
from jaxcnn.data.fields import LABEL, with_image
from jaxcnn.data.memory import Memory, load
from jaxcnn.data.pipeline import EvaluationBatches, Rounds, TrainBatches, iterate
from jaxcnn.data.synthetic import Synthetic
from jaxcnn.experiment import Data, Experiment
from jaxcnn.runs.display import Display
from jaxcnn.runs.loop import run
from jaxcnn.runs.reader import Reader
from jaxcnn.runs.setup import make_plan
from jaxcnn.runs.start import start_run
from jaxcnn.train.duration import steps
from tests.nets import TinyNet

SHAPE = (9, 9, 3)
FIELDS = with_image(SHAPE, LABEL)
SOURCE = Synthetic(image_shape=SHAPE, classes=4, train=40, test=20)


@pytest.fixture
def pools(monkeypatch):
    """The number of pools of worker processes that are asked for; threads read in their place."""
    asked = []

    def mp_prefetch(self, options, **others):
        asked.append(options.num_workers)
        return self

    monkeypatch.setattr(grain.IterDataset, "mp_prefetch", mp_prefetch)
    return asked


@pytest.mark.parametrize("limit, expected", [(0, 3), (2**30, 0)])
def test_a_run_starts_the_workers_of_a_split_once_and_none_for_what_is_in_memory(limit, expected, pools, tmp_path):
    data = Data(
        SHAPE,
        SOURCE,
        evaluation_splits=("test", "validation"),
        batch_size=8,
        evaluation_batch_size=8,
        workers=2,
        memory_limit=limit,
    )
    if hasattr(data, "test_splits"):
        data = dataclasses.replace(data, test_splits=())
    made = Experiment(model=TinyNet(), data=data, duration=steps(9), evaluate_every=steps(3), log_every=steps(3))
    plan = make_plan(made)
    with (
        start_run(tmp_path / "run", config.encode(made), None, plan.dataset()) as directory,
        Display(Console(file=io.StringIO())) as display,
    ):
        outcome = run(plan, directory, display)
    assert outcome.state == "done" and outcome.result["validation"]["count"] == 20
    assert pools == [2] * expected  # of training and of two splits, at three evaluations of each


def test_the_rounds_of_a_kept_reader_are_evaluations_of_the_whole_split(pools):
    made = EvaluationBatches(SOURCE.open("test"), (), FIELDS, 8)
    other = EvaluationBatches(SOURCE.open("validation"), (), FIELDS, 8)
    reader = Reader(workers=2)
    for _ in range(3):
        for split, batches in (("test", made), ("validation", other)):
            read = [*reader.evaluation(split, batches)]
            assert len(read) == len(batches) == 3
            for batch, expected in zip(read, batches, strict=False):
                for name in expected:
                    np.testing.assert_array_equal(batch[name], expected[name])
    assert pools == [2, 2]
    reader.close()


@pytest.mark.parametrize("processors, threads", [(1, 2), (4, 4), (64, 8), (None, 2)])
def test_threads_go_by_the_number_of_processors(processors, threads, monkeypatch):
    given, options = [], grain.ReadOptions
    monkeypatch.setattr("os.cpu_count", lambda: processors)
    monkeypatch.setattr(grain, "ReadOptions", lambda **fields: given.append(fields["num_threads"]) or options(**fields))
    made = EvaluationBatches(SOURCE.open("test"), (), FIELDS, 8)
    assert sum(batch["valid"].sum() for batch in iterate(made)) == 20
    assert given == [threads]


def test_no_process_starts_for_a_gather():
    memory, _ = load(SOURCE.open("test"), (), FIELDS, 2**30)
    assert isinstance(memory, Memory)
    before = set(multiprocessing.active_children())
    for batches in (TrainBatches(memory, (), FIELDS, 8, 0), EvaluationBatches(memory, (), FIELDS, 8)):
        iterator = iterate(batches, workers=2)
        next(iterator)
        assert set(multiprocessing.active_children()) == before
        iterator.close()
    assert Rounds(EvaluationBatches(memory, (), FIELDS, 8)).resident
