"""Commands about data sets: `jaxcnn data prepare` and `jaxcnn data check`."""

import dataclasses
import pathlib
from typing import Annotated

import tyro

from jaxcnn.commands.output import show_lines
from jaxcnn.errors import UserError


def prepare(name: Annotated[str, tyro.conf.Positional], /, data_dir: str | None = None) -> None:
    """Download and prepare a TFDS data set, once; training never does.

    Args:
      name: Such as fashion_mnist or imagenet2012.
      data_dir: Where to; default TFDS_DATA_DIR, else TFDS's own.
    """
    from jaxcnn.data.tfds import prepare as prepare_dataset

    print(prepare_dataset(name, data_dir))


@dataclasses.dataclass(frozen=True)
class Check:
    """Read every example that an experiment uses and take it through its transforms; list the broken ones, and the
    classes of which a split has nothing.

    All other flags are the experiment's.
    """

    file: Annotated[pathlib.Path, tyro.conf.Positional]
    """An experiment file."""
    data_dir: str | None = None
    """Where prepared TFDS data lies."""


def check(arguments: list[str]) -> None:
    """Runs `jaxcnn data check`; UserError if an example is broken."""
    from jaxcnn.data.box_rules import counts
    from jaxcnn.data.splits import open_split
    from jaxcnn.data.survey import survey
    from jaxcnn.flags import parse, with_flags
    from jaxcnn.runs.setup import batch_fields

    chosen, flags = with_flags(Check, "jaxcnn data check", arguments)
    experiment = parse(chosen.file, flags).experiment
    data = experiment.data
    found = 0
    held_out = dict.fromkeys((*data.evaluation_splits, *data.test_splits))
    uses = [(data.train_split, data.augment, False), *((split, data.preprocess, True) for split in held_out)]
    for split, transforms, evaluated in dict.fromkeys(uses):
        fields = batch_fields(experiment, evaluated=evaluated)
        examples = open_split(data.source, split, chosen.data_dir or data.data_dir)
        surveyed, dropped = survey(examples, transforms, fields), list(getattr(examples, "dropped", ()))
        broken = surveyed.broken
        found += len(broken)
        show_lines(
            f"{examples.name} {split}: {len(examples):,} images, {len(broken)} broken",
            *(f"  {error.where}: {error.cause}" for error in broken),
            *(f"  {line}" for line in counts([note for _, note in surveyed.notes] + dropped)),
            *(f"  {where}: {note.text}" for where, note in surveyed.notes),
            *(f"  {note.text}" for note in dropped),
            *(f"  {line}" for line in surveyed.absent(examples)),
        )
    if found:
        raise UserError(f"{found} broken images")
