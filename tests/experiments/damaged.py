"""The tiny run, on examples of which three in the rows of each of two processes cannot be used."""

import dataclasses

from jaxcnn.data.examples import BrokenExample
from jaxcnn.data.pipeline import shuffled_indices
from jaxcnn.data.synthetic import Synthetic
from jaxcnn.experiment import Experiment
from tests.experiments import tiny

ROWS = (33, 34, 35, 41, 42, 43)  # of step 2, whose 16 positions start at 32: the first half is process 0's


@dataclasses.dataclass(frozen=True)
class Damaged(Synthetic):
    def open(self, split, data_dir=None):
        examples = super().open(split)
        return DamagedExamples(examples) if split == "train" else examples


class DamagedExamples:
    def __init__(self, examples):
        self.name, self.version, self.split = examples.name, examples.version, examples.split
        self.classes, self.where, self._examples = examples.classes, examples.where, examples
        stream = shuffled_indices(0, len(examples), 0, len(examples))
        self.broken = {int(stream[position]) for position in ROWS}

    def __len__(self):
        return len(self._examples)

    def __getitem__(self, i):
        if i in self.broken:
            raise BrokenExample(i, self.where(i), "made so")
        return self._examples[i]


def experiment() -> Experiment:
    made = tiny.experiment()
    source = Damaged(**vars(made.data.source))
    return dataclasses.replace(made, data=dataclasses.replace(made.data, source=source, memory_limit=0))
