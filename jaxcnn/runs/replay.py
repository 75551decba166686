"""Replay: one step of a run computed again, from the newest checkpoint before it."""

import math
import pathlib
from typing import Any

import jax

from jaxcnn.errors import UserError
from jaxcnn.runs import checkpoint
from jaxcnn.runs.evaluation import placed
from jaxcnn.runs.initial_state import abstract_state
from jaxcnn.runs.member import check_same_teacher, train_batches
from jaxcnn.runs.program import compile_train_step
from jaxcnn.runs.restore import load_experiment
from jaxcnn.runs.run_directory import is_training, open_run
from jaxcnn.runs.selection import observe
from jaxcnn.runs.setup import make_plan
from jaxcnn.runs.stepper import stepper_for
from jaxcnn.runs.teacher import load_frozen
from jaxcnn.train import mesh as meshes
from jaxcnn.train.schedules import Plateau
from jaxcnn.train.state import all_finite


def replay(path: pathlib.Path, step: int) -> dict[str, Any]:
    """Computes the steps from the newest checkpoint before `step` (counted from 1) up to it; the run is not touched.

    On the run's own devices the figures are the run's to the bit: the step is the same compiled program.

    Returns:
      {"step", "from": the checkpoint's step, "loss", "grad_norm", "finite": these, and what the step made of the
      net, "examples": indices in the training split,
      "recorded": the loss that the run noted for this step, as text, or None}.

    Raises:
      UserError: this is no run, it has no such step, or a run with init_from has no checkpoint before the step, or
        its teacher is another one now.
    """
    directory = open_run(path)
    experiment = load_experiment(directory)
    plan = make_plan(experiment)
    if not 1 <= step <= plan.total:
        raise UserError(f"{path} has steps 1 to {plan.total}; there is no step {step}")
    before = [number for number in checkpoint.steps(directory.checkpoints) if number < step]
    if not before and experiment.init_from.run is not None:
        raise UserError(f"{path} has no checkpoint before step {step}, and it began with the weights of another run")
    abstract = abstract_state(experiment, plan.mesh)
    compiled = compile_train_step(plan)
    if before:
        manager = checkpoint.open_reader(directory.checkpoints, experiment)
        try:
            state, note = checkpoint.restore(manager, before[-1], abstract, directory.recognize)
        except Exception as error:  # orbax and tensorstore raise many types on damaged files
            raise UserError(
                f"{path}: checkpoint {before[-1]} cannot be read ({checkpoint.cause_of(error)}); start the run's "
                "command again: it goes on from the one before"
            ) from error
        finally:
            manager.close()
    else:
        (state,), note = stepper_for([plan]).create(), {"evaluated": True}
    first = before[-1] if before else 0
    frozen, digest = load_frozen(plan)
    if before:
        check_same_teacher(path, note, digest)
    frozen = stepper_for([plan]).put_frozen(frozen)
    batches = train_batches(plan, plan.train, experiment.data.augment[: experiment.data.leading])
    metrics: dict[str, Any] = {}
    for number in range(first, step):
        if isinstance(experiment.schedule, Plateau) and (number > first or not note["evaluated"]):
            state = _evaluated(state, plan, directory.metrics(), number)
        batch = placed(batches[number], experiment, plan.mesh, evaluated=False)
        state, metrics = compiled.call(state, frozen, batch)
    loss, grad_norm = (float(metrics[name]) for name in ("step_loss", "grad_norm"))
    status = directory.status()
    noted = directory.skipped.get(step) or (
        status if status.get("state") == "diverged" and status["step"] == step else {}
    )
    return {
        "step": step,
        "from": first,
        "loss": loss,
        "grad_norm": grad_norm,
        "finite": math.isfinite(loss) and math.isfinite(grad_norm) and all_finite(state, plan.mesh),
        "examples": batches.indices(step - 1).tolist(),
        "recorded": noted.get("loss"),
    }


def _evaluated(state: Any, plan: Any, lines: list[dict[str, Any]], step: int) -> Any:
    """The state after the plateau schedule has seen the run's evaluation at this step, where there was one."""
    split = next(iter(plan.evaluations))
    for line in lines:
        if line["step"] == step and line["split"] == split and not is_training(line):
            observed = observe(plan.experiment, state.plateau, line)
            return state.replace(plateau=jax.device_put(observed, meshes.replicated(plan.mesh)))
    return state
