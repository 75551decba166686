"""What a batch costs on the host: Grain over examples, and Grain over whole batches, which is what the pipeline does.

python benchmarks/input_pipeline.py

The reason for the second form (docs/design.md). Fashion-MNIST's shape, batch 128, images already in memory.
"""

import statistics
import time

import grain

from jaxcnn.data.memory import load
from jaxcnn.data.pipeline import TrainBatches, iterate
from jaxcnn.data.synthetic import Synthetic
from jaxcnn.data.transforms import HorizontalFlip, PadAndCrop

BATCH, SHAPE = 128, (28, 28, 1)


def microseconds_per_example(iterator, rounds: int = 9, batches: int = 40) -> float:
    next(iterator)
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(batches):
            next(iterator)
        times.append((time.perf_counter() - start) / batches / BATCH)
    return 1e6 * statistics.median(times)


def main() -> None:
    memory, _ = load(Synthetic(SHAPE, train=20_000).open("train"), (), 2**30)
    options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)
    single = grain.MapDataset.source(memory).seed(0).shuffle().repeat().batch(BATCH)
    whole = TrainBatches(memory, (), SHAPE, BATCH, seed=0)
    augmented = TrainBatches(memory, (PadAndCrop(2), HorizontalFlip()), SHAPE, BATCH, seed=0)
    print(f"Grain over examples:           {microseconds_per_example(iter(single)):6.1f} us/image")
    threads = iter(single.to_iter_dataset(options))
    print(f"Grain over examples, threads:  {microseconds_per_example(threads):6.1f} us/image")
    print(f"Grain over batches:            {microseconds_per_example(iterate(whole)):6.1f} us/image")
    print(f"Grain over batches, augmented: {microseconds_per_example(iterate(augmented)):6.1f} us/image")


if __name__ == "__main__":
    main()
