"""Commands about data sets: `jaxcnn data prepare`, `jaxcnn data pack` and `jaxcnn data check`."""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Callable
from typing import Annotated, Literal

import tyro
from rich.console import Console

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


def pack(
    source: Annotated[str, tyro.conf.Positional],
    /,
    *,
    out: pathlib.Path,
    side: int = 256,
    quality: int = 90,
    splits: tuple[str, ...] = (),
    name: str | None = None,
    channels: Literal[1, 3] = 3,
    data_dir: str | None = None,
    tolerate_broken: int = 0,
) -> None:
    """Make the images of a set smaller, once, into array_record files that train faster.

    Args:
      source: A folder of class folders, or of splits with class folders; or a TFDS set, such as imagenet2012.
      out: Where sets lie, the --data.data-dir of a run.
      side: The shorter side of larger images, in pixels; smaller ones keep their size.
      quality: Of the JPEGs, 1 to 100.
      splits: Which; default all.
      name: Of the new set; default such as photos_256px_q90.
      channels: Of a folder's images, 1 or 3.
      data_dir: Where the TFDS set lies; default TFDS_DATA_DIR, else TFDS's own.
      tolerate_broken: How many broken images may be left out.
    """
    from jaxcnn.data.folder import Folder
    from jaxcnn.data.pack import pack as pack_set
    from jaxcnn.data.tfds import Tfds
    from jaxcnn.runs.display import Display

    folder = os.path.expanduser(source)
    is_folder = os.path.isdir(folder) or source.startswith((".", "/", "~"))
    with Display(Console(stderr=True)) as display, contextlib.ExitStack() as bars:
        shown: dict[str, Callable[..., None]] = {}

        def advance(split: str, done: int, total: int) -> None:
            if split not in shown:
                bars.close()
                shown[split] = bars.enter_context(display.task(f"pack {split}", total))
            shown[split](done)

        packed = pack_set(
            Folder(folder, channels) if is_folder else Tfds(source),
            str(out),
            side=side,
            quality=quality,
            splits=splits,
            name=name,
            data_dir=data_dir,
            tolerate_broken=tolerate_broken,
            advance=advance,
        )
    info = packed.info
    show_lines(
        f"{packed.name} {'is packed' if packed.made else 'is already packed'} in {packed.folder}",
        *(
            f"  {split}: {count:,} images, {info['bytes'][split] / 2**20:,.1f} MiB"
            + (f", {info['left_out'][split]:,} broken ones left out" if info["left_out"][split] else "")
            for split, count in info["images"].items()
        ),
        f'train on it: Data(source=jc.Tfds("{packed.name}"), ...) and --data.data-dir {os.path.abspath(out)}',
    )


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
    from jaxcnn.runs.batch_shapes import batch_fields

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
