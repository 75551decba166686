"""Sweep: one experiment at many points, without claims; which one is best, and what each field does to the figure."""

import dataclasses
import pathlib

from jaxcnn.errors import UserError
from jaxcnn.experiment import Experiment
from jaxcnn.runs.debug import debug
from jaxcnn.runs.setup import make_plan
from jaxcnn.studies.axes import Point, with_values
from jaxcnn.studies.cell import Measured, metric_names
from jaxcnn.studies.search import GRID, Search, Space, SuccessiveHalving
from jaxcnn.studies.trials import Trial, trial_of, untested
from jaxcnn.studies.tuning import check_metric, check_splits, direction_of, metric_of
from jaxcnn.tasks.task import Direction


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What a sweep file's `sweep(scale)`, or `sweep()`, returns. Run, shared, stopped and resumed as a study is.

    Nothing of it touches a test image: the best point is chosen, and its figure on a test split would not be an honest
    one. Run the best as an experiment, with its flags, or put the axes into a study's `tuning`.

    Example:
      def sweep() -> jc.Sweep:
          return jc.Sweep(experiment(), {"optimizer.learning_rate": (0.01, 0.03, 0.1), "data.batch_size": (64, 128)})
    """

    base: Experiment
    axes: Space
    """{"optimizer.learning_rate": (0.01, 0.03, 0.1)}: fields of the base by their dotted names, or ranges for
    RandomSearch: {"optimizer.learning_rate": jc.LogUniform(1e-3, 1.0)}."""
    seeds: tuple[int, ...] = (0,)
    """Each point is run with each; its score is the mean."""
    metric: str | None = None
    """A figure of an evaluation split or of training; None: the task's score on the first evaluation split."""
    search: Search = GRID
    note: str = ""
    """For the page."""
    tried_out: bool = False
    """Whether --debug has shrunk it: two points, a few steps on made-up images."""

    def __post_init__(self):
        if not self.axes:
            raise UserError('sweep.axes name no field, such as {"optimizer.learning_rate": (0.01, 0.03, 0.1)}')
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise UserError(f"sweep.seeds are {self.seeds}: there must be one at least, and none twice")

    @property
    def points(self) -> list[Point]:
        found = self.search.points(self.axes)
        return found[:2] if self.tried_out else found

    @property
    def figure(self) -> str:
        """What is compared."""
        if self.tried_out:
            return metric_of(self.made({}), _validation(self.metric, self.base))
        return metric_of(self.base, self.metric)

    @property
    def direction(self) -> Direction:
        return direction_of(self.base, self.figure)

    def made(self, point: Point) -> Experiment:
        """The base with a point's values, without test splits."""
        made = with_values(untested(self.base), point, "sweep.axes")
        if isinstance(self.search, SuccessiveHalving):
            first = dataclasses.replace(made.duration, amount=made.duration.amount * self.search.share(0))
            made = dataclasses.replace(made, evaluate_every=first)
        return debug(made) if self.tried_out else made


def check_sweep(sweep: Sweep) -> None:
    """Raises UserError for what can be known before anything is run: a field or a value that the base does not take, a
    metric that it lacks or that is of test images, an evaluation split that shares images with a test split."""
    for point in sweep.points:
        sweep.made(point)
    check_splits("sweep: the base", sweep.metric, sweep.base)
    check_metric("sweep.metric", sweep.metric, sweep.base, metric_names(sweep.base, Measured("")))


def trials_of(sweep: Sweep, path: pathlib.Path) -> list[Trial]:
    """All trials of a sweep in `path`, in the order of its points."""
    return [trial_of("", sweep.made(point), point, sweep.seeds, path / "trials") for point in sweep.points]


def rung_steps(sweep: Sweep) -> list[int | None]:
    """Up to which step each rung trains; None: to the end. One rung without successive halving, and with --debug.

    Raises:
      UserError: the duration has too few steps for its rungs.
    """
    search = sweep.search
    if not isinstance(search, SuccessiveHalving) or sweep.tried_out:
        return [None]
    plan = make_plan(sweep.made({}))
    found = [plan.evaluate_every * search.eta**rung for rung in range(search.rungs - 1)]
    if found[-1] >= plan.total:
        raise UserError(f"sweep: {plan.total} steps are too few for {search.rungs} rungs with eta {search.eta}")
    return [*found, None]


def _validation(metric: str | None, base: Experiment) -> str | None:
    """A metric with the name that --debug gives its split."""
    for split in base.data.evaluation_splits:
        if metric is not None and metric.startswith(f"{split} "):
            return f"validation {metric.removeprefix(f'{split} ')}"
    return metric
