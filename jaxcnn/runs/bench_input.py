"""What each part of the way from the files to the step could do alone, in images per second, and which is the slowest.

The host's stages are timed in one thread, image by image, on the batches that the run would read: what a stage could do
on all the threads or worker processes that read is so many times as much. Batches are then read ahead as a run reads
them, which is what the host does in truth.
"""

import contextlib
import dataclasses
import itertools
import os
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax

from jaxcnn.data.encoded import Encoded
from jaxcnn.data.examples import Example, Examples, stored
from jaxcnn.data.memory import load
from jaxcnn.data.pipeline import TrainBatches, iterate, reading_threads
from jaxcnn.errors import UserError
from jaxcnn.experiment import Experiment
from jaxcnn.runs.batch_shapes import batch_fields
from jaxcnn.runs.member import train_batches
from jaxcnn.runs.setup import Plan, make_plan
from jaxcnn.runs.stepper import Single, Stepper
from jaxcnn.runs.teacher import load_frozen
from jaxcnn.text import counted
from jaxcnn.train.mesh import on_cpu

HOST = ("read", "decode", "augment", "batch")
"""The stages of the host, in order. "read": the source gives its example, encoded if it can (data/encoded.py), else
with the decoding; "augment": checks and transforms; "batch": rows into arrays."""
FEWEST = 3
"""Batches, transfers or steps that are timed at least."""
clock = time.perf_counter


@dataclasses.dataclass(frozen=True)
class Bench:
    """Images per second, None if there is no such stage: in memory nothing is read, and few sources give encoded
    images."""

    stages: dict[str, float | None]
    """Of each stage of the host alone, on all readers."""
    readers: int
    reader: str
    """"workers", processes, or "threads"."""
    host: float
    """Of all stages of the host together, as batches are read ahead."""
    transfer: float
    step: float
    """The compiled step alone, on a batch that stays on the device."""
    expected: float
    """Of the whole loop: the slowest of the three, since they go on at the same time; if the device is the CPU that
    reads too, no more than reading and step one after the other give."""
    bottleneck: str
    """A stage of the host, "transfer" or "step"."""

    def verdict(self) -> str:
        """The bottleneck in a sentence."""
        step = f"{self.step:,.0f}"
        if self.bottleneck == "step":
            return f"step: {step} images/s; the host gives {self.host:,.0f}, and the transfer {self.transfer:,.0f}"
        if self.bottleneck == "transfer":
            return f"transfer: {self.transfer:,.0f} images/s; the step needs {step}"
        alone = self.stages[self.bottleneck]
        return (
            f"{self.bottleneck}: {alone:,.0f} images/s on {counted(self.readers, self.reader)}, {self.host:,.0f} with "
            f"the other stages; the step needs {step}"
        )


def bench_input(experiment: Experiment, seconds: float = 3.0, stepper: Stepper | None = None) -> Bench:
    """Measures the training input of an experiment on this machine; trains nothing that is kept.

    Args:
      experiment: its training split, transforms, batch size, workers, net and optimizer.
      seconds: how long each figure is measured at least; not less than three batches.
      stepper: what computes; None: as the run's own.

    Raises:
      UserError: there are several processes; the seconds are negative; as a run's start.
    """
    if jax.process_count() > 1:
        raise UserError("bench-input measures one process; start it alone on one machine of the run")
    if not 0 <= seconds < float("inf"):
        raise UserError(f"seconds is {seconds:g}; it is how long each figure is measured, at least 0")
    plan = make_plan(experiment)
    data = experiment.data
    examples, transforms = load(
        plan.train, data.augment[: data.leading], batch_fields(experiment), data.memory_limit, data.tolerate_broken
    )
    stepper = stepper or Single(plan)
    (batches,) = stepper.sender.hold_if_small([train_batches(plan, examples, transforms)], data.device_limit)
    stages = _stages(batches, seconds)
    host = _read_ahead(batches, data.workers, seconds)
    transfer, step = _device(plan, stepper, batches[0], seconds)
    size = data.batch_size
    workers = 0 if batches.resident else data.workers
    readers = workers or (1 if batches.resident else min(reading_threads(), os.cpu_count() or 1))
    alone = {name: size * readers / each if each else None for name, each in stages.items()}
    rates = {"host": host, "transfer": size / transfer, "step": size / step}
    slowest = min(rates, key=lambda name: rates[name])
    expected = rates[slowest]
    if on_cpu(plan.mesh):
        expected = min(rates["transfer"], 1 / (1 / host + step / size))
    bottleneck = max(HOST, key=lambda name: stages[name]) if slowest == "host" else slowest
    return Bench(alone, readers, "workers" if workers else "threads", **rates, expected=expected, bottleneck=bottleneck)


class _Clocks:
    """Seconds by name, and the name of what is under way: a stage within another one is not counted twice."""

    def __init__(self):
        self.seconds: dict[str, float] = dict.fromkeys(HOST, 0.0)
        self._names: list[str] = []
        self._since = 0.0

    @contextlib.contextmanager
    def during(self, name: str) -> Iterator[None]:
        self._turn()
        self._names.append(name)
        try:
            yield
        finally:
            self._turn()
            self._names.pop()

    def _turn(self) -> None:
        """What has passed since the last turn goes to the innermost name."""
        now = clock()
        if self._names:
            self.seconds[self._names[-1]] += now - self._since
        self._since = now


class _TimedImage(Encoded):
    """An encoded image whose decoding is timed."""

    def __init__(self, image: Encoded, clocks: _Clocks):
        self.__dict__.update(vars(image))
        self.clocks = clocks

    def decoded(self):
        with self.clocks.during("decode"):
            return super().decoded()

    def window(self, window):
        with self.clocks.during("decode"):
            return super().window(window)

    def reduced(self, window, size, method, antialias=True):
        with self.clocks.during("decode"):
            return super().reduced(window, size, method, antialias)


class _TimedExamples:
    """Examples whose reading, and whose images' decoding, is timed."""

    def __init__(self, examples: Examples, clocks: _Clocks):
        self._examples, self._clocks = examples, clocks

    def __getattr__(self, name: str) -> Any:
        return getattr(self._examples, name)

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, i: int) -> Example:
        with self._clocks.during("read"):
            return self._examples[i]

    def encoded(self, i: int) -> Example:
        with self._clocks.during("read"):
            example = stored(self._examples, i)
        if isinstance(example["image"], Encoded):
            return example | {"image": _TimedImage(example["image"], self._clocks)}
        return example


@dataclasses.dataclass(frozen=True)
class _TimedBatches(TrainBatches):
    """Batches whose rows are timed."""

    clocks: _Clocks = dataclasses.field(kw_only=True)

    def row(self, index, rng, stage):
        with self.clocks.during("augment"):
            return super().row(index, rng, stage)


def _stages(batches: TrainBatches, seconds: float) -> dict[str, float]:
    """Seconds of each stage per batch, in one thread: medians, which another process's work does not move."""
    found: dict[str, list[float]] = {name: [] for name in HOST}
    start = clock()
    for k in itertools.count():
        clocks = _Clocks()
        fields = {field.name: getattr(batches, field.name) for field in dataclasses.fields(TrainBatches)}
        if not batches.resident:
            fields["examples"] = _TimedExamples(batches.examples, clocks)
        timed = _TimedBatches(**fields, clocks=clocks)
        with clocks.during("batch"):
            timed[k]
        for name, each in clocks.seconds.items():
            found[name].append(each)
        if k >= FEWEST and clock() - start > seconds:
            return {name: statistics.median(each[1:]) for name, each in found.items()}
    raise AssertionError


def _read_ahead(batches: TrainBatches, workers: int, seconds: float) -> float:
    """Images per second as a loop gets them that does nothing else, after those that were read ahead at its start."""
    ahead = 4 * max(workers, 1) if workers and not batches.resident else 2 * reading_threads() + 2
    with contextlib.closing(iterate(batches, workers=workers)) as stream:
        for _ in range(ahead):
            next(stream)
        start, count = clock(), 0
        while count < FEWEST * 2 or clock() - start < seconds:
            next(stream)
            count += 1
        return count * batches.batch_size / (clock() - start)


def _device(plan: Plan, stepper: Stepper, batch: Any, seconds: float) -> tuple[float, float]:
    """Seconds of a transfer and of a step, medians of several; each is waited for."""
    compiled = stepper.lower_train()()
    state = stepper.joined(stepper.create())
    frozen = stepper.put_frozen(load_frozen(plan)[0])
    on_device = stepper.put((batch,))

    def transfer() -> None:
        jax.block_until_ready(stepper.put((batch,)))

    def step() -> None:
        nonlocal state
        state, metrics = compiled.call(state, frozen, on_device)
        jax.block_until_ready(metrics)

    return _median(transfer, seconds), _median(step, seconds)


def _median(call: Callable[[], None], seconds: float) -> float:
    call()
    times: list[float] = []
    start = clock()
    while len(times) < FEWEST or clock() - start < seconds:
        before = clock()
        call()
        times.append(clock() - before)
    return statistics.median(times)
