"""What images cost on the host: draws, transforms, batches, and an evaluation with and without worker processes.

python benchmarks/input_pipeline.py

CIFAR's recipe (pad by 4, crop, flip; 32 x 32 x 3, batch 128) and ImageNet's (an area of a photo of 500 x 375, flip;
224 x 224). "One core" is processor time of one thread, the fastest of several rounds, so that other work on the machine
does not count; the rest is wall-clock time. Grain over single examples is the reason for batches as its elements
(docs/design.md).
"""

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Callable

import grain
import numpy as np

from jaxcnn.data.crops import crops_of
from jaxcnn.data.draws import AUGMENTATION, Draws
from jaxcnn.data.fields import LABEL, with_image
from jaxcnn.data.memory import load
from jaxcnn.data.pipeline import EvaluationBatches, Rounds, TrainBatches, iterate
from jaxcnn.data.synthetic import Synthetic
from jaxcnn.data.transforms import CenterCrop, HorizontalFlip, PadAndCrop, RandomResizedCrop, Resize

BATCH, SHAPE, PHOTO = 128, (32, 32, 3), (375, 500, 3)
FIELDS = with_image(SHAPE, LABEL)
CIFAR = (PadAndCrop(4), HorizontalFlip())
IMAGENET = (RandomResizedCrop(224), HorizontalFlip())


@dataclasses.dataclass(frozen=True)
class Photos:
    """Synthetic examples of PHOTO, made once and not for each batch."""

    name, version, split, classes = "photos", "1", "train", ("one",)
    count: int = 512

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int):
        return {"image": np.broadcast_to(np.uint8(i % 256), PHOTO), "label": 0}

    def where(self, i: int) -> str:
        return f"photos[{i}]"


def on_one_core(batch: Callable[[int], object], examples: int = BATCH, batches: int = 20, rounds: int = 9) -> float:
    """Microseconds of this thread's processor time per example, in the fastest round."""
    times = []
    batch(0)
    for _ in range(rounds):
        start = time.thread_time()
        for k in range(batches):
            batch(k)
        times.append((time.thread_time() - start) / batches / examples)
    return 1e6 * min(times)


def through(iterator, batches: int = 100, rounds: int = 5) -> float:
    """Microseconds per example as the loop meets them, in the fastest round."""
    next(iterator)
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(batches):
            next(iterator)
        times.append((time.perf_counter() - start) / batches / BATCH)
    return 1e6 * min(times)


def evaluations(batches: EvaluationBatches, workers: int, rounds: int = 4) -> str:
    """Seconds of each of several evaluations in a row."""
    times = []
    kept = iterate(Rounds(batches), workers=workers) if workers and not batches.resident else None
    for _ in range(rounds):
        start = time.perf_counter()
        if kept is None:
            with contextlib.closing(iterate(batches, workers=workers)) as read:
                count = sum(int(batch["valid"].sum()) for batch in read)
        else:
            count = sum(int(batch["valid"].sum()) for batch in itertools.islice(kept, len(batches)))
        assert count == len(batches.examples)
        times.append(time.perf_counter() - start)
    if kept is not None:
        kept.close()
    return "  ".join(f"{seconds:6.3f}" for seconds in times)


def main() -> None:
    source = Synthetic(SHAPE, train=20_000, test=5_000)
    memory, _ = load(source.open("train"), (), FIELDS, 2**30)
    plain, cifar = TrainBatches(memory, (), FIELDS, BATCH, seed=0), TrainBatches(memory, CIFAR, FIELDS, BATCH, seed=0)
    held, anew = TrainBatches(memory, (), {}, BATCH, 0, crops=crops_of(CIFAR, SHAPE, FIELDS)), itertools.count()
    imagenet = TrainBatches(Photos(), IMAGENET, with_image((224, 224, 3), LABEL), BATCH, seed=0)

    def draws(step: int) -> None:
        made = Draws(AUGMENTATION)
        for place in range(BATCH):
            made.at(step * BATCH + place)

    print("On one core, microseconds per example")
    print(f"  the generators alone              {on_one_core(draws):8.2f}")
    print(f"  a batch out of memory             {on_one_core(plain.__getitem__):8.2f}")
    print(f"  CIFAR: pad, crop and flip         {on_one_core(cifar.__getitem__):8.2f}")
    print(f"  the same, drawn for a device      {on_one_core(lambda _: held[next(anew)]):8.2f}")
    print(f"  ImageNet: area to 224, flip       {on_one_core(imagenet.__getitem__, batches=1, rounds=5):8.0f}")

    options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)
    single = grain.MapDataset.source(memory).seed(0).shuffle().repeat().batch(BATCH)
    print("Read ahead by Grain's threads, microseconds per example")
    print(f"  single examples, without augmentation {through(iter(single.to_iter_dataset(options))):8.2f}")
    print(f"  batches, without augmentation         {through(iterate(plain)):8.2f}")
    print(f"  batches, CIFAR                        {through(iterate(cifar)):8.2f}")

    test = source.open("test")
    streamed = EvaluationBatches(test, (Resize(36), CenterCrop(32)), FIELDS, 500)
    resident = EvaluationBatches(load(test, (), FIELDS, 2**30)[0], (), FIELDS, 500)
    print("Four evaluations of 5,000 examples, seconds")
    print(f"  in memory, 2 workers asked for   {evaluations(resident, 2)}")
    print(f"  read anew, threads               {evaluations(streamed, 0)}")
    print(f"  read anew, 2 worker processes    {evaluations(streamed, 2)}")


if __name__ == "__main__":
    main()
