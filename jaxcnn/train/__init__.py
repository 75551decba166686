"""Training. The package can be called: `jaxcnn.train(experiment, workdir)` is jaxcnn.runs.run.train.

`jaxcnn.train` is this package as soon as any module of it is imported, so a function of that name would not stay one.
"""

import pathlib
import sys
import types
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxcnn.experiment import Experiment
    from jaxcnn.runs.run import Run


class _Package(types.ModuleType):
    def __call__(self, experiment: "Experiment", workdir: str | pathlib.Path, *, quiet: bool = False) -> "Run":
        """Trains an experiment into a run directory and returns it: see jaxcnn.runs.run.train."""
        from jaxcnn.runs.run import train

        return train(experiment, workdir, quiet=quiet)


sys.modules[__name__].__class__ = _Package
