"""Batch shapes: the arrays of a batch that the task of a run reads, and a global batch on the devices as shapes."""

import jax
from jax.sharding import Mesh

from jaxcnn.data.fields import Field, Fields, with_image
from jaxcnn.experiment import Experiment
from jaxcnn.train import mesh as meshes


def batch_fields(experiment: Experiment, *, evaluated: bool = False) -> Fields:
    """The arrays of a training batch that the task reads, the image among them; or of one that is evaluated."""
    shape = experiment.data.shape(evaluated=evaluated)
    return with_image(shape, experiment.task.fields(shape))


def abstract_batch(
    experiment: Experiment, mesh: Mesh, size: int, *, evaluated: bool
) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of a global batch on the devices; those of evaluation say which examples are valid."""
    fields = batch_fields(experiment, evaluated=evaluated) | ({"valid": Field((), "bool")} if evaluated else {})
    sharding = meshes.split(mesh)
    return {
        name: jax.ShapeDtypeStruct((size, *field.shape), field.dtype, sharding=sharding)
        for name, field in fields.items()
    }
