"""Study: a question, named changes to one experiment, and the claims that the runs of all seeds will decide."""

import dataclasses
import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

from jaxcnn.errors import UserError, did_you_mean
from jaxcnn.experiment import Experiment
from jaxcnn.runs.debug import debug
from jaxcnn.runs.restore import RestoredRun, prepared_as_source
from jaxcnn.studies.axes import value_of, with_values
from jaxcnn.studies.budget import Matched, check_matched
from jaxcnn.studies.tuning import Tuning
from jaxcnn.tasks.classification import Classification
from jaxcnn.tasks.task import score_of

EXACT = ("parameters", "multiply-adds", "megabytes kept")
"""Figures that are counted and not measured: they are the same for every seed, so that one seed decides."""


@runtime_checkable
class Probe(Protocol):
    """A frozen dataclass that measures a finished run once more, for instance on shifted test images."""

    metrics: ClassVar[Sequence[str]]
    """The names of what `measure` returns, so that a claim can be checked before anything is run."""

    def measure(self, run: RestoredRun) -> dict[str, float]:
        """{name of a figure: its value}."""
        ...


@runtime_checkable
class Untrained(Protocol):
    """An arm that is no training run, such as k-nearest neighbours: a frozen dataclass."""

    @property
    def metrics(self) -> Sequence[str]:
        """The names of what `measure` returns."""
        ...

    def measure(self, seed: int) -> dict[str, float]:
        """{name of a figure: its value}."""
        ...


Arm = Experiment | Untrained


@dataclasses.dataclass(frozen=True)
class Claim:
    """`higher`'s figure exceeds `lower`'s by more than `margin`; or with `within`, the two are nearer than that.

    The differences are paired, seed by seed. A claim that something costs little (non-inferiority) has a negative
    margin: "at most 0.01 lower" is margin=-0.01. One that it makes no difference (equivalence) has `within`, and is
    decided by two one-sided tests (significance.py).

    Examples:
      Claim("dropout helps", "dropout", "none")
      Claim("the head costs at most a point", "gap", "fc", margin=-0.01)
      Claim("both heads are alike to a point", "gap", "fc", within=0.01)
    """

    text: str
    """The claim as a sentence."""
    higher: str
    """Name of the arm whose figure is to be the higher one."""
    lower: str
    metric: str | None = None
    """A figure (see cell.py for their names); None: the study's metric."""
    margin: float = 0.0
    """In the figure's own unit."""
    within: float | None = None
    """In the figure's own unit: the claim is then that the difference is smaller, whichever is higher."""
    beyond: tuple[str, str] | None = None
    """Two arms whose difference, first minus second, is taken off: the claim is then about a difference of
    differences, such as "the gap is wider in a deep net"."""
    published: str = ""
    """What the source measured."""
    different: str = ""
    """How its setting differs from this one."""

    def __post_init__(self):
        if not math.isfinite(self.margin):
            raise UserError(f"the claim {self.text!r} has the margin {self.margin}; it must be finite")
        if self.within is not None and not 0 < self.within < math.inf:
            raise UserError(f"the claim {self.text!r} has within {self.within}; it must be above 0, and finite")
        if self.within is not None and self.margin:
            raise UserError(f"the claim {self.text!r} has a margin and within; it can have one of them")


@dataclasses.dataclass(frozen=True)
class Study:
    """What a study file's `study(scale)` returns (scale.py), or its `study()`."""

    question: str
    arms: Mapping[str, Arm]
    """The first is the baseline. Everything but the named change should be equal between them."""
    claims: tuple[Claim, ...]
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Five are the fewest that decide anything; eight see effects two thirds as large."""
    metric: str = f"test {score_of(Classification())}"
    """The figure that the table compares."""
    reach: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """{"train loss": 0.75} adds the figure "epochs to train loss 0.75": where it is first reached."""
    probes: tuple[Probe, ...] = ()
    """Measured on every arm that is a run."""
    diverged: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """{"test loss": 2.3}: what a diverged run counts as, such as chance; without it, such a run has no figure, and
    a claim that needs it is inconclusive."""
    deviation: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """{"test accuracy": 0.01}: by how much paired differences are expected to deviate between seeds, such as in other
    runs: the start says what effect can be seen then (foreseen.py). It decides nothing."""
    note: str = ""
    """What a reader must know of the scale, for the page."""
    tuning: Tuning | None = None
    """What every arm that trains is tuned by before the verdict's cells are run; None: the arms are as they are."""
    groups: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    """{name: arms}: a claim may name a group for an arm, and is then about the mean of their figures, seed by seed.
    `groups.factorial` makes those of main effects and interactions."""
    matched: Matched = ""
    """What is equal between the arms that train, which is checked: "epochs", "steps", or "compute", the multiply-adds
    of the whole training within a tenth; "": not stated."""

    def __post_init__(self):
        if len(self.arms) < 2:
            raise UserError("a study compares at least two arms")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise UserError(f"study.seeds are {self.seeds}: there must be one at least, and none twice")
        for figure, value in self.deviation.items():
            if not 0 < value < math.inf:
                raise UserError(f"study.deviation[{figure!r}] is {value}; it must be above 0, and finite")
        folders = [folder(name) for name in self.arms]
        if len(set(folders)) != len(folders):
            raise UserError(f"two arms have the same folder: {', '.join(folders)}")
        for group, arms in self.groups.items():
            if group in self.arms or not arms or len(set(arms)) != len(arms):
                raise UserError(f"the group {group!r} needs a name of its own and at least one arm, each once")
            for name in arms:
                _known(f"the group {group!r} names no arm", name, self.arms)
        named = {**self.arms, **self.groups}
        for claim in self.claims:
            for name in (claim.higher, claim.lower, *(claim.beyond or ())):
                _known(f"the claim {claim.text!r} names no arm", name, named)
        check_matched(self.matched, self.arms)


def _known(what: str, name: str, known: Mapping[str, Any]) -> None:
    if name not in known:
        hint = did_you_mean(name, known) or "; there is " + ", ".join(known)
        raise UserError(f"{what} {name!r}{hint}")


def folder(arm: str) -> str:
    """The name of an arm's folder: "VGG A, no LRN" -> "vgg-a-no-lrn"; a digest if it has no such letters."""
    name = re.sub(r"[^a-z0-9.]+", "-", arm.lower()).strip("-.")
    return name or f"arm-{hashlib.sha256(arm.encode(errors='surrogateescape')).hexdigest()[:8]}"


def with_seed(arm: Arm, seed: int) -> Arm:
    return dataclasses.replace(arm, seed=seed) if isinstance(arm, Experiment) else arm


def prepared(study: Study) -> Study:
    """The study with the images of every run prepared as those of the run that it starts from, if its `init_from` asks
    for that. Raises UserError as `prepared_as_source`, with the arm's name."""
    made = {}
    for name, arm in study.arms.items():
        try:
            made[name] = _changed(arm, prepared_as_source)
        except UserError as error:
            raise UserError(f"arm {name!r}: {error}") from error
    return dataclasses.replace(study, arms=made)


def shrunk(study: Study) -> Study:
    """The study with every run shrunk to seconds on synthetic data, and two seeds: for trying it out.

    An arm that is no run is shrunk in the experiments that it holds. Figures of the first test split are those of the
    synthetic data's "test".
    """
    split = next(each.data.test_splits[0] for arm in study.arms.values() for each in _experiments(arm))

    def renamed(figure: str) -> str:
        return f"test {figure.removeprefix(f'{split} ')}" if figure.startswith(f"{split} ") else figure

    return dataclasses.replace(
        study,
        note=f"Tried out with --debug: a few steps on made-up images, so no figure here means anything. {study.note}",
        arms={name: _changed(arm, debug) for name, arm in study.arms.items()},
        claims=tuple(
            dataclasses.replace(claim, metric=renamed(claim.metric) if claim.metric else None) for claim in study.claims
        ),
        seeds=study.seeds[:2],
        metric=renamed(study.metric),
        diverged={renamed(figure): value for figure, value in study.diverged.items()},
        deviation={renamed(figure): value for figure, value in study.deviation.items()},
        tuning=_one_point(study),
        matched="",
    )


def _one_point(study: Study) -> Tuning | None:
    """A tuning of the first point alone, with the values that --debug makes of it, such as a rate for its batches."""
    tuning = study.tuning
    if tuning is None:
        return None
    own, metric = {}, tuning.metric
    for name, arm in study.arms.items():
        if isinstance(arm, Experiment):
            tried = debug(with_values(arm, tuning.points_of(name)[0]))
            own[name] = {field: (value_of(tried, field),) for field in tuning.axes}
            for split in arm.data.evaluation_splits:
                if metric is not None and metric.startswith(f"{split} "):
                    metric = f"validation {metric.removeprefix(f'{split} ')}"
    return Tuning(next(iter(own.values())), tuning.seeds[:1], metric, own)


def _changed(arm: Arm, change: Callable[[Experiment], Experiment]) -> Arm:
    """The arm with its run changed, or the runs that it holds."""
    if isinstance(arm, Experiment):
        return change(arm)
    whole: Any = arm  # a frozen dataclass, which a protocol cannot say
    return dataclasses.replace(whole, **{name: change(value) for name, value in _held(arm).items()})


def _held(arm: Untrained) -> dict[str, Experiment]:
    """The experiments that an arm which is no run holds, by field."""
    whole: Any = arm
    values = {field.name: getattr(arm, field.name) for field in dataclasses.fields(whole)}
    return {name: value for name, value in values.items() if isinstance(value, Experiment)}


def _experiments(arm: Arm) -> list[Experiment]:
    return [arm] if isinstance(arm, Experiment) else [*_held(arm).values()]
