"""Restore: one checkpoint of a run directory, read back with its experiment."""

import dataclasses
import pathlib
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.sharding import Mesh

from jaxcnn import config, experiment_file, trust
from jaxcnn.data.examples import Examples
from jaxcnn.errors import UserError
from jaxcnn.experiment import Data, Experiment
from jaxcnn.runs import checkpoint as checkpoints
from jaxcnn.runs import own_code
from jaxcnn.runs.initial_state import abstract_state
from jaxcnn.runs.run_directory import RunDirectory, open_run
from jaxcnn.train import mesh as meshes
from jaxcnn.train.init_from import chosen
from jaxcnn.train.optimizers import Optax, mover_of
from jaxcnn.train.state import TrainState


@dataclasses.dataclass(frozen=True)
class RestoredRun:
    """One checkpoint of a run, with the run's experiment and class names."""

    directory: RunDirectory
    experiment: Experiment
    classes: tuple[str, ...]
    step: int
    state: TrainState
    mesh: Mesh


def load_experiment(directory: RunDirectory) -> Experiment:
    """The experiment of a run, from its config.json; classes of its own come from its experiment.py and code/.

    Its data is where its newest start found it, which may be another place than that of the first.

    Raises:
      UserError: it has classes of its own and their code is not trusted, fails, or lacks one.
    """
    encoded = directory.config()
    config.set_data_paths(encoded, directory.newest_start().get("free", {}))
    foreign = config.foreign(encoded)
    if not foreign:
        return config.decode(encoded)
    file = directory.path / experiment_file.FILE
    if not trust.is_trusted(own_code.trusted_as(directory.path, encoded)):
        raise UserError(
            f"{directory.path}: its config names {', '.join(sorted(foreign))}, code of a run that you did not start "
            f"here; look at {file} and {file.parent / experiment_file.FOLDER}, then give --trust to run it"
        )
    own = {experiment_file.MODULE, *own_code.modules(directory.path)}
    if any(name.partition(":")[0].partition(".")[0] in own for name in foreign):
        with experiment_file.launched_file():
            try:
                experiment_file.load_module(file, directory.path / experiment_file.FOLDER)
            except Exception as error:
                raise experiment_file.failure(file, error) from error
            return config.decode(encoded, trusted=True)
    return config.decode(encoded, trusted=True)


def trust_run(path: pathlib.Path) -> None:
    """Trusts the code of a run from now on. Raises UserError if `path` holds no run."""
    directory = open_run(path)
    trust.remember(own_code.trusted_as(directory.path, directory.config()))


def load_run(path: str | pathlib.Path, checkpoint: str = "latest", experiment: Experiment | None = None) -> RestoredRun:
    """Reads a checkpoint of a run: `checkpoint` is "latest", "best" or a step, `experiment` the run's, if it is known.

    Raises:
      UserError: this is no run, it has no such checkpoint, or the checkpoint cannot be read.
    """
    directory = open_run(pathlib.Path(path))
    experiment = experiment or load_experiment(directory)
    if not checkpoints.steps(directory.checkpoints):
        raise UserError(f"{path} has no checkpoint yet")
    manager = checkpoints.open_reader(directory.checkpoints, experiment)
    steps = sorted(manager.all_steps())
    chosen = {"latest": steps[-1], "best": manager.best_step()}.get(checkpoint, checkpoint)
    if chosen is None:
        why = (
            "data.evaluation_splits is empty"
            if not experiment.data.evaluation_splits
            else "checkpoints.best is 0"
            if not experiment.checkpoints.best
            else "no evaluation has happened yet"
        )
        raise UserError(
            f"{path}: no checkpoint is the best, since {why}; there are latest, {', '.join(map(str, steps))}"
        )
    if not str(chosen).isdigit() or int(chosen) not in steps:
        raise UserError(f"{path}: no checkpoint {checkpoint!r}; there are latest, best, {', '.join(map(str, steps))}")
    mesh = meshes.make_mesh()
    try:
        expected = stored_state(experiment, mesh, manager.path / str(chosen))
        state, _ = checkpoints.restore(manager, int(chosen), expected, directory.recognize)
    except Exception as error:  # orbax and tensorstore raise many types on damaged files
        cause = checkpoints.cause_of(error)
        raise UserError(f"{path}: checkpoint {chosen} cannot be read ({cause}); try another --checkpoint") from error
    finally:
        manager.close()
    return RestoredRun(
        directory, experiment, tuple(directory.environment()["dataset"]["classes"]), int(chosen), state, mesh
    )


def other_data(directory: RunDirectory, examples: Examples) -> str | None:
    """What to tell if a split's images are not those that the run knew, whose figures will not come out; else None."""
    known = directory.newest_start().get("dataset", {}).get("versions", {}).get(examples.split)
    if known in (None, examples.version):
        return None
    return (
        f"{examples.split} of {examples.name} holds other images than when the run was trained (version {known} then, "
        f"{examples.version} now): figures differ from the run's, and parts of a split may hold images trained on"
    )


def stored_state(experiment: Experiment, mesh: Mesh, step: pathlib.Path) -> Any:
    """What a checkpoint of this experiment has, as `abstract_state`, whose optimizer may be known in words alone."""
    expected = abstract_state(experiment, mesh)
    optimizer = mover_of(experiment.optimizer)
    if not (isinstance(optimizer, Optax) and optimizer.transformation is None):
        return expected
    stored: Any = ocp.StandardCheckpointer().metadata(step / "state").item_metadata
    there = stored["opt_state"]
    leaf = lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=meshes.replicated(mesh))  # noqa: E731
    return dataclasses.replace(expected, opt_state=jax.tree.map(leaf, there))


def check_init_from(experiment: Experiment, mesh: Mesh) -> None:
    """UserError where `experiment.init_from` names no run, or one whose weights do not fit; only shapes are read."""
    init_from = experiment.init_from
    if init_from.run is None:
        return
    directory = open_run(pathlib.Path(init_from.run))
    if not checkpoints.steps(directory.checkpoints):
        raise UserError(f"init_from: {init_from.run} has no checkpoint yet")
    chosen(abstract_state(experiment, mesh), abstract_state(load_experiment(directory), mesh), init_from)


PREPARED = ("image_shape", "evaluation_shape", "preprocess", "normalize")
"""The fields of data that say how images are prepared for prediction."""


def prepared_as_source(experiment: Experiment) -> Experiment:
    """The experiment with its images prepared as those of the run that it starts from, if its `init_from` asks for it.

    Raises:
      UserError: that is no run, or its preparation has classes of its own whose code is not trusted.
    """
    init_from = experiment.init_from
    if init_from.run is None or not init_from.preparation:
        return experiment
    source = load_experiment(open_run(pathlib.Path(init_from.run))).data
    data = dataclasses.replace(experiment.data, **{field: getattr(source, field) for field in PREPARED})
    return dataclasses.replace(experiment, data=data)


def prepared_otherwise(experiment: Experiment, source: RestoredRun) -> list[str]:
    """A warning for each field in which images are prepared otherwise than for the net whose weights are taken; or what
    was taken over."""
    ours, theirs, run = experiment.data, source.experiment.data, experiment.init_from.run
    if experiment.init_from.preparation:
        steps = ", ".join(map(str, ours.preprocess)) or "nothing"
        shape = "x".join(map(str, ours.shape(evaluated=True)))
        return [f"images are prepared as for {run}: {steps}, to {shape}, then {ours.normalize}"]
    lines = []
    for field in ("image_shape", "normalize"):
        here, there = getattr(ours, field), getattr(theirs, field)
        if here != there:
            lines.append(
                f"warning: the net of {run} was trained with data.{field} {there}, and here it is {here}; take theirs "
                "(--init-from.preparation), if that is not meant"
            )
    here, there = (sorted(_methods(data)) for data in (ours, theirs))
    if here and there and here != there:
        lines.append(
            f"warning: images for the net of {run} are resized by {' and '.join(there)}, and here by "
            f"{' and '.join(here)}; give data.preprocess its method, if that is not meant"
        )
    return lines


def _methods(data: Data) -> set[str]:
    """By which evaluation's images are interpolated."""
    return {getattr(transform, "method", "") for transform in data.preprocess} - {""}
