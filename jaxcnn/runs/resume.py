"""Resume: the states with which a loop begins: those of checkpoints, or new ones with the weights of another run."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence

from jaxcnn.experiment import Experiment
from jaxcnn.runs import checkpoint
from jaxcnn.runs.member import Member
from jaxcnn.runs.restore import load_run, prepared_otherwise
from jaxcnn.runs.stepper import Stepper
from jaxcnn.train.init_from import overlay
from jaxcnn.train.state import TrainState


def newest_common(
    members: Sequence[Member], stepper: Stepper, agree: Callable[[bool], bool]
) -> list[checkpoint.Restored] | None:
    """What all runs can be restored to; None if that is the start.

    Of the runs of several seeds one may have saved a step more, or have lost one to damage: what the others have beyond
    it is removed, and computed again.

    Raises:
      UserError: as checkpoint.restore_latest.
    """
    damaged: list[list[str]] = [[] for _ in members]
    while True:
        found = [
            checkpoint.restore_latest(member.manager, stepper.abstract, member.directory.recognize, agree)
            for member in members
        ]
        for lines, each in zip(damaged, found, strict=True):
            lines += each.damaged if each is not None else ()
        steps = [0 if each is None else each.step for each in found]
        if min(steps) == max(steps):
            both = zip(found, damaged, strict=True)
            return [dataclasses.replace(each, damaged=tuple(lines)) for each, lines in both if each is not None] or None
        for member in members:
            for step in member.manager.all_steps():
                if step > min(steps):
                    member.manager.delete(step)


def with_init_from(state: TrainState, experiment: Experiment, say: Callable[[str], None]) -> TrainState:
    """A new state with the weights of another run, if the experiment names one."""
    init_from = experiment.init_from
    if init_from.run is None:
        return state
    restored = load_run(pathlib.Path(init_from.run), init_from.checkpoint)
    state, report = overlay(state, restored.state, init_from)
    for line in (*report, *prepared_otherwise(experiment, restored)):
        say(line)
    return state
