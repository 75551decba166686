"""The largest batch whose train step fits into the devices' memory, by compiling only."""

import dataclasses

import jax
import jax.numpy as jnp

from jaxcnn.data.splits import open_split
from jaxcnn.errors import UserError
from jaxcnn.experiment import Experiment
from jaxcnn.runs.compilation import Compiled
from jaxcnn.runs.initial_state import optimizer_of
from jaxcnn.runs.memory import batch_unit, device_memory, gib, is_out_of_memory, largest_batch
from jaxcnn.runs.program import compile_step
from jaxcnn.runs.setup import check_shapes, resolved
from jaxcnn.train import mesh as meshes

SPARE = 0.25


@dataclasses.dataclass(frozen=True)
class Fit:
    """The largest batch that fits, and the bytes per device of every batch size that was compiled."""

    batch_size: int
    needed: dict[int, int]
    limit: int
    devices: int
    platform: str
    examples: int | None
    """Of the training split, if it could be opened: no batch is larger."""

    @property
    def fits_all_examples(self) -> bool:
        """Whether there is memory for more than the examples."""
        return self.examples is not None and max(self.needed) == self.batch_size


def fit_batch(experiment: Experiment, limit: int | None = None) -> Fit:
    """Compiles the train step for growing batches up to the training split's size; reads no image and runs nothing.

    Args:
      experiment: whose batch size is where the search starts.
      limit: bytes per device; default what this machine's devices have, of a CPU's memory SPARE less: it holds the
        data, the system and other programs too.

    Raises:
      UserError: not even the smallest batch fits, or the model does not take the images' sizes.
    """
    mesh = meshes.make_mesh(experiment.parallel)
    if limit is None:
        limit = int(device_memory(mesh) * (1 - SPARE if jax.default_backend() == "cpu" else 1))
    constant = lambda step: jnp.float32(0)  # noqa: E731
    experiment = resolved(experiment, lambda _: 1)  # at which step something begins changes no memory
    check_shapes(experiment, mesh)
    optimizer = optimizer_of(experiment, constant)

    def needs(size: int) -> int:
        # How many of its images are the same changes no memory, and one of few images may not hold so many.
        data = dataclasses.replace(experiment.data, batch_size=size, repeats=0)
        try:
            sized = dataclasses.replace(experiment, data=data)
            compiled: Compiled = compile_step(sized, mesh, optimizer, constant, log_every=1)
        except Exception as error:
            if is_out_of_memory(error):  # some compilers refuse what they know not to fit
                return max(limit + 1, 2 * limit)
            raise
        return compiled.memory

    unit = batch_unit(experiment, mesh)
    examples = _examples(experiment)
    most = None if examples is None else max(unit, examples // unit * unit)
    found, needed = largest_batch(needs, unit, limit, experiment.data.batch_size, most)
    if not found:
        raise UserError(
            f"not even a batch of {unit} fits: it needs {gib(needed[unit])} per device of {gib(limit)}; "
            f"try --parallel.fsdp {mesh.size} or --rematerialize"
        )
    return Fit(found, dict(sorted(needed.items())), limit, mesh.size, jax.default_backend(), examples)


def _examples(experiment: Experiment) -> int | None:
    """Of the training split; None if it is not here, as on a machine for trying out."""
    data = experiment.data
    try:
        return len(open_split(data.source, data.train_split, data.data_dir))
    except UserError:
        return None
