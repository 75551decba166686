"""Global batches as a pure function of (seed, step): no iterator has state, so resume only needs the step.

A batch is a dict of numpy arrays: its fields (data/fields.py), such as "image" uint8 [B, H, W, C] and "label" int32
[B]; "valid" bool [B], the rows that are examples and count; "index" int64 [B], the example's place in its split; and
"broken" bool [B]. Grain runs the reading, in threads or worker processes; its unit is a whole batch and not an example,
for its cost per element would otherwise exceed a small net's step (docs/design.md).
"""

import dataclasses
import functools
import itertools
import os
import signal
import threading
import time
from collections.abc import Generator
from typing import Any, cast

import numpy as np

from jaxcnn.data.crops import Crops
from jaxcnn.data.draws import AUGMENTATION, EVALUATION, Draws, philox_key
from jaxcnn.data.examples import BrokenExample, Example, Examples
from jaxcnn.data.fields import Fields
from jaxcnn.data.memory import Memory
from jaxcnn.data.preparation import read
from jaxcnn.data.sampling import BalancedOrder
from jaxcnn.data.transforms import Transform
from jaxcnn.errors import UserError

Batch = dict[str, np.ndarray]


@functools.lru_cache(maxsize=4)
def permutation(seed: int, epoch: int, n: int) -> np.ndarray:
    """The order of the n examples in one epoch.

    Sorted raw Philox words, and not Generator.permutation, because NumPy promises the former's stream for ever.
    """
    words = np.random.Philox(key=philox_key(seed, epoch)).random_raw(n)
    order = np.argsort(words, kind="stable")
    order.flags.writeable = False
    return order


def shuffled_indices(seed: int, n: int, start: int, stop: int) -> np.ndarray:
    """The examples at positions [start, stop) of the endless stream of shuffled epochs; int64 [stop - start]."""
    parts = [
        permutation(seed, epoch, n)[max(start - epoch * n, 0) : stop - epoch * n]
        for epoch in range(start // n, -(-stop // n))
    ]
    return np.concatenate(parts)


@dataclasses.dataclass(frozen=True)
class Stage:
    """From step `first` on images are made by these transforms, into batches of these fields."""

    first: int
    transforms: tuple[Transform, ...]
    fields: Fields


@dataclasses.dataclass(frozen=True)
class TrainBatches:
    """Batch k of training holds positions [k B, (k + 1) B) of the shuffled stream, in this order.

    Process p of P holds the p-th of P equal parts, so that the global batch is the same for every P. An example's
    augmentation is drawn from (seed, its position in the stream), whatever process or worker computes it.
    A broken example is replaced by the next good one of the split and marked in "broken"; BrokenExample is raised
    where it is more than `tolerate_broken` examples away.

    With `repeats` R, each example of the stream is there R times, augmented by draws of its own each time. In a batch
    its copies lie about B / R rows apart, so that what mixes neighbors (tasks/mixing.py) mixes different images.
    """

    examples: Examples
    transforms: tuple[Transform, ...]
    fields: Fields
    batch_size: int
    seed: int
    tolerate_broken: int = 0
    process: int = 0
    processes: int = 1
    repeats: int = 1
    order: BalancedOrder | None = None
    """Of the stream, in the place of shuffled epochs."""
    stages: tuple[Stage, ...] = ()
    """In the order of their first steps, the first at 0, in the place of `transforms` and `fields`; (): those."""
    crops: Crops | None = None
    """Drawn for each batch as its "crop", int32 [B, 4], for what cuts them out of the images elsewhere."""

    def __len__(self) -> int:
        # Grain asks for a length; no run reaches this step.
        return 2**40 // self.batch_size

    @property
    def resident(self) -> bool:
        """Whether a batch is a plain gather from arrays."""
        return not self.stages and _resident(self.examples, self.transforms, self.fields)

    def stage(self, step: int) -> Stage:
        """How the images of this step are made."""
        begun = [stage for stage in self.stages if stage.first <= step]
        return begun[-1] if begun else Stage(0, self.transforms, self.fields)

    def at_end(self) -> "TrainBatches":
        """The same batches, all made as those of the last stage."""
        return dataclasses.replace(self, stages=tuple(dataclasses.replace(each, first=0) for each in self.stages[-1:]))

    def indices(self, step: int) -> np.ndarray:
        """The examples of the whole global batch of this step, int64 [B]."""
        first, end = step * self.batch_size, (step + 1) * self.batch_size
        start, stop = first // self.repeats, -(-end // self.repeats)
        if self.order is not None:
            stream = self.order.indices(self.seed, start, stop)
        else:
            stream = shuffled_indices(self.seed, len(self.examples), start, stop)
        if self.repeats == 1:
            return stream
        apart = np.argsort(np.arange(self.batch_size) % self.repeats, kind="stable")
        return stream[(first + apart) // self.repeats - start]

    def __getitem__(self, step: int) -> Batch:
        part = self.batch_size // self.processes
        first = self.process * part
        indices = self.indices(step)[first : first + part]
        if self.resident:
            batch = _gather(cast(Memory, self.examples), self.fields, indices)
            if self.crops is not None:
                batch["crop"] = self.crops.draw(self.seed ^ AUGMENTATION, step * self.batch_size + first, part)
        else:
            stage = self.stage(step)
            batch = _empty(part, stage.fields, indices)
            draws = Draws(self.seed ^ AUGMENTATION)
            for row, index in enumerate(indices.tolist()):
                place = step * self.batch_size + first + row
                example, passed_over = self.row(index, draws.at(place), stage)
                for name, part in example.items():
                    batch[name][row] = part
                batch["broken"][row] = passed_over > 0
            batch["valid"][:] = True
        return batch

    def row(self, index: int, rng: np.random.Generator, stage: Stage) -> tuple[Example, int]:
        """Example `index`, or the next one that is not broken, as the row of a batch of this stage, and how many were
        passed over."""
        n = len(self.examples)
        for candidate in range(index, index + n):
            try:
                return read(self.examples, candidate % n, stage.transforms, rng, stage.fields), candidate - index
            except BrokenExample:
                if candidate - index >= self.tolerate_broken:
                    raise
        raise UserError(f"{self.examples.name}/{self.examples.split}: not one of its {n} images can be used")

    def broken(self, step: int, batch: Batch) -> list[BrokenExample]:
        """Why the examples that are marked in this process's batch of this step could not be used.

        They are read again, with the draws that they had; one that can be read now is left out.
        """
        first = step * self.batch_size + self.process * (self.batch_size // self.processes)
        draws, found, stage = Draws(self.seed ^ AUGMENTATION), [], self.stage(step)
        for row in np.flatnonzero(batch["broken"]).tolist():
            try:
                index = int(batch["index"][row])
                read(self.examples, index, stage.transforms, draws.at(first + row), stage.fields)
            except BrokenExample as error:
                found.append(error)
        return found


@dataclasses.dataclass(frozen=True)
class EvaluationBatches:
    """The split in order, each example once; the last batch is padded with rows that are not valid.

    A broken example is not valid either, and "broken" is true.
    """

    examples: Examples
    transforms: tuple[Transform, ...]
    fields: Fields
    batch_size: int
    tolerate_broken: int = 0
    process: int = 0
    processes: int = 1

    def __len__(self) -> int:
        return -(-len(self.examples) // self.batch_size)

    @property
    def resident(self) -> bool:
        """Whether a batch is a plain gather from arrays."""
        return _resident(self.examples, self.transforms, self.fields)

    def __getitem__(self, k: int) -> Batch:
        part = self.batch_size // self.processes
        first = k * self.batch_size + self.process * part
        indices = np.arange(first, min(first + part, len(self.examples)), dtype=np.int64)
        batch = _empty(part, self.fields, indices)
        if self.resident:
            for name, rows in _gather(cast(Memory, self.examples), self.fields, indices).items():
                batch[name][: len(indices)] = rows
            return batch
        draws = Draws(EVALUATION)
        for row, index in enumerate(indices.tolist()):
            try:
                # Few evaluations draw; what one does is the same at every step and for every size of the batch.
                example = read(self.examples, index, self.transforms, draws.at(index), self.fields)
            except BrokenExample:
                if not self.tolerate_broken:
                    raise
                batch["broken"][row] = True
                continue
            for name, part in example.items():
                batch[name][row] = part
            batch["valid"][row] = True
        return batch

    def broken(self, indices: np.ndarray) -> list[BrokenExample]:
        """Why these examples could not be used: they are read again; one that can be read now is left out."""
        draws, found = Draws(EVALUATION), []
        for index in indices.tolist():
            try:
                read(self.examples, index, self.transforms, draws.at(index), self.fields)
            except BrokenExample as error:
                found.append(error)
        return found


@dataclasses.dataclass(frozen=True)
class Rounds:
    """A split's evaluation batches again and again: batch k of round r is at r * len(batches) + k.

    Read as one stream, so that worker processes start once and not at every evaluation; between two they have the
    first few batches of the next one ready.
    """

    batches: EvaluationBatches

    def __len__(self) -> int:
        return 2**40

    @property
    def resident(self) -> bool:
        return self.batches.resident

    def __getitem__(self, k: int) -> Batch:
        return self.batches[k % len(self.batches)]


def reading_threads() -> int:
    """How many threads read and augment if no worker processes do."""
    return min(8, max(2, os.cpu_count() or 2))


def iterate(
    batches: TrainBatches | EvaluationBatches | Rounds, start: int = 0, *, workers: int = 0
) -> Generator[Batch, None, None]:
    """Batches start, start + 1, ..., read ahead by Grain. Close it when done.

    In threads, one per processor but 2 to 8, or in `workers` processes; what is resident needs none of these, for a
    gather costs less than the way from another process. Batches of indices alone cost less than the way from a thread.
    """
    if isinstance(batches, TrainBatches) and not batches.fields and batches.resident:
        yield from (batches[step] for step in itertools.count(start))  # without an end

    import grain

    workers = 0 if batches.resident else workers
    threads = 2 if workers or batches.resident else reading_threads()
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 if workers else threads + 2)
    source: Any = batches  # it asks for more of a sequence than it uses
    dataset = grain.MapDataset.source(source)[start:].to_iter_dataset(options)
    if workers:
        from absl import flags

        # Grain's workers read absl flags, which only absl.app.run would have parsed.
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()
        options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2)
        dataset = dataset.mp_prefetch(options, worker_init_fn=functools.partial(_settle_in, os.getpid()))
    iterator = iter(dataset)
    try:
        yield from iterator
    finally:
        iterator.close()


def _settle_in(parent: int, index: int, count: int) -> None:
    """Runs first in a worker process: it outlives every signal that the main process handles, and not its parent."""
    # Ctrl-C and a scheduler's signals reach the whole process group; what follows is for the main process to decide.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)

    def exit_with_parent() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=exit_with_parent, daemon=True).start()


def _resident(examples: Examples, transforms: tuple[Transform, ...], fields: Fields) -> bool:
    """Whether a batch is a plain gather from arrays."""
    return (
        isinstance(examples, Memory)
        and not (transforms or examples.broken)
        and all(examples.arrays[name].shape[1:] == field.shape for name, field in fields.items())
    )


def _gather(memory: Memory, fields: Fields, indices: np.ndarray) -> Batch:
    yes = np.ones(len(indices), bool)
    rows = {name: memory.arrays[name][indices] for name in fields}
    return rows | {"valid": yes, "index": indices, "broken": ~yes}


def _empty(rows: int, fields: Fields, indices: np.ndarray) -> Batch:
    return {name: field.empty(rows) for name, field in fields.items()} | {
        "valid": np.zeros(rows, bool),
        "index": np.concatenate([indices, np.full(rows - len(indices), -1, np.int64)]),
        "broken": np.zeros(rows, bool),
    }
