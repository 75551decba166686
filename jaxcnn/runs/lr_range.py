"""Learning-rate range test: the loss while the rate rises from far too low to far too high (Smith 2017, 3.3)."""

import dataclasses
import pathlib

import numpy as np
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter1d

from jaxcnn.errors import UserError
from jaxcnn.experiment import Checkpoints, Experiment
from jaxcnn.runs.run import train
from jaxcnn.runs.run_directory import RunDirectory
from jaxcnn.train.duration import steps
from jaxcnn.train.early_stopping import EarlyStopping
from jaxcnn.train.optimizers import Optax, mover_of, with_learning_rate
from jaxcnn.train.schedules import Rising

WIDTH = 1 / 25
"""Of the Gaussian that smooths the losses, as a part of the steps: one batch says little."""
WORSE = 4.0
"""A loss of so many times the first ones counts no more than that, or one batch would hide what is before it."""


@dataclasses.dataclass(frozen=True)
class Tested:
    """What the steps of a range test showed."""

    rates: list[float]
    losses: list[float]
    """Of the step at that rate."""
    smoothed: list[float]
    """A mean of those around it."""
    steepest: float
    """The rate at which the smoothed loss falls the fastest for a relative change of the rate: a usual choice of the
    peak."""
    lowest: float
    """The rate at which it is the lowest: above the highest rate of use, unless it is the last one."""

    @property
    def falling(self) -> bool:
        """Whether the loss still falls at the last rate, so that higher ones are of interest."""
        return self.lowest == self.rates[-1]


def lr_range(
    experiment: Experiment, folder: pathlib.Path, low: float = 1e-6, high: float = 10.0, length: int = 100
) -> Tested:
    """Trains for `length` steps of rising rate, in a run directory of its own, and measures no split.

    Args:
      experiment: whose optimizer, data and net are tried; its schedule, duration and evaluations are left out. What its
        `init_from.preparation` asks for is taken over already (restore.prepared_as_source), as flags.parse does.
      folder: of the run.
      low: the first rate.
      high: the last.
      length: the number of steps.

    Raises:
      UserError: the optimizer is an optax transformation; the rates are not 0 < low < high; the loss was not
        finite from the start, or does not fall.
    """
    if isinstance(mover_of(experiment.optimizer), Optax):
        raise UserError(
            "an optax transformation has its rate within, and others cannot be tried; take jc.SGD or jc.Adam"
        )
    if not 0 < low < high < float("inf"):
        raise UserError(f"the rates rise from {low:g} to {high:g}; they must be above 0, and the second the higher")
    if length < 10:
        raise UserError(f"{length} steps are too few to see anything; take at least 10")
    tried = dataclasses.replace(
        experiment,
        optimizer=with_learning_rate(experiment.optimizer, high),
        schedule=Rising(low / high),
        data=dataclasses.replace(experiment.data, evaluation_splits=(), test_splits=(), sizes=()),
        duration=steps(length),
        # Once more it would undo what --debug has made of it.
        init_from=dataclasses.replace(experiment.init_from, preparation=False),
        early_stopping=EarlyStopping(),
        evaluate_every=steps(length),
        log_every=steps(1),
        checkpoints=Checkpoints(every=steps(length)),
        skip_bad_steps=0,
    )
    try:
        train(tried, folder, quiet=True)
    except UserError:
        # At a rate far too high the loss is not finite, and the run says so: what was before it counts.
        if not folder.exists() or RunDirectory(folder).status().get("state") != "diverged":
            raise
    lines = [line for line in RunDirectory(folder).metrics() if line["split"] == "train" and line["loss"] is not None]
    if len(lines) < 5:
        raise UserError(f"the loss was not finite from step {len(lines) + 1} on, at a rate of {low:g}; begin lower")
    return judge([line["learning_rate"] for line in lines], [line["loss"] for line in lines])


def judge(rates: list[float], losses: list[float]) -> Tested:
    """Where the loss falls the fastest before it is the lowest. Raises UserError if it does not fall."""
    capped = np.minimum(losses, WORSE * np.median(losses[:5]))
    smoothed = gaussian_filter1d(capped, max(1.0, WIDTH * len(losses)), mode="nearest")
    lowest = int(np.argmin(smoothed))
    slopes = np.gradient(smoothed, np.log(rates))[: lowest + 1]
    if slopes.min() >= 0:
        raise UserError(f"the loss does not fall at any rate from {rates[0]:g} on: begin lower, or take more steps")
    return Tested(rates, losses, smoothed.tolist(), float(rates[int(np.argmin(slopes))]), float(rates[lowest]))


def draw(tested: Tested) -> Figure:
    """Loss over rate, with the steepest place and the lowest."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    axis.plot(tested.rates, tested.losses, color="C0", alpha=0.3, label="of one step")
    axis.plot(tested.rates, tested.smoothed, color="C0", label="smoothed")
    axis.axvline(tested.steepest, color="C2", linestyle="--", label=f"falls the fastest: {tested.steepest:.2g}")
    axis.axvline(tested.lowest, color="C3", linestyle=":", label=f"lowest: {tested.lowest:.2g}")
    spread = max(tested.smoothed) - min(tested.smoothed)
    limits = (min(tested.smoothed) - 0.1 * spread, max(tested.smoothed) + 0.1 * spread)
    axis.set(xscale="log", xlabel="learning rate", ylabel="training loss", ylim=limits if spread else None)
    axis.grid(alpha=0.3)
    axis.legend(fontsize="small")
    return figure
