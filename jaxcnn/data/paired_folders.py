"""Images in one folder and their masks in another, under the same names."""

import os
from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxcnn.data.checks import IGNORED
from jaxcnn.data.examples import Examples, check_split
from jaxcnn.data.folder import EXTENSIONS, LITTER, some, subfolders
from jaxcnn.data.masks import MaskedExamples, MaskValues
from jaxcnn.data.splits import sliced
from jaxcnn.errors import UserError


@dataclass(frozen=True)
class PairedFolders:
    """Images and masks with the same names in two folders: PairedFolders("set/images", "set/masks", ("sky", "road")).

    Where the paths have "{split}" in them, it stands for the split: "set/{split}/images" and "set/{split}annot". Else
    split "train" is all of it, to be cut into "train[:70%]" and so on (splits.py).

    An image without a mask, a mask without an image, and files that are not images are refused by name. Order: file
    name, compared by code point.
    """

    slices: ClassVar[bool] = True

    images: str
    """Both are made absolute at once, so that a stored run finds its images from anywhere."""
    masks: str
    """PNG or another format without loss, grey or with a palette, whose indices are read."""
    classes: tuple[str, ...]
    """Names in the order of the masks' values, the background among them if it is one."""
    values: tuple[int, ...] | None = None
    """The value of each class in the masks, if it is not 0, 1, 2, ...: (0, 255) for black and white."""
    ignored: tuple[int, ...] = (IGNORED,)
    """Values of pixels that count nowhere."""
    mask_suffix: str = ""
    """What a mask's name has beside its image's: "_mask" for 1.jpg and 1_mask.png."""
    channels: Literal[1, 3] = 3

    def __post_init__(self):
        check_channels(self, self.channels)
        self._values  # noqa: B018  refuses values that cannot be
        for field in ("images", "masks"):
            object.__setattr__(self, field, os.path.abspath(os.path.expanduser(getattr(self, field))))
        if ("{split}" in self.images) != ("{split}" in self.masks):
            raise UserError("PairedFolders: {split} is in one of images and masks; write it in both or in neither")
        if self.images == self.masks and not self.mask_suffix:
            raise UserError("PairedFolders: images and masks are in one folder; tell them apart by mask_suffix")

    @property
    def _values(self) -> MaskValues:
        return MaskValues(len(self.classes), self.values, self.ignored)

    def open(self, split: str, data_dir: str | None = None) -> Examples:
        """The examples of a split, or of a part of it; `data_dir` is not used. Only lists the files: they are read when
        they are asked for.
        """
        return sliced(self._open, split)

    def _open(self, split: str) -> MaskedExamples:
        if "{split}" not in self.images:
            check_split(split, ["train"], f"{self.images} without {{split}} in its path")
        folders = [path.replace("{split}", split) for path in (self.images, self.masks)]
        for pattern, folder in zip((self.images, self.masks), folders, strict=True):
            if not os.path.isdir(folder):
                raise UserError(f"PairedFolders: there is no folder {folder}{_splits_beside(pattern)}")
        images, masks = (by_stem(folder) for folder in folders)
        if folders[0] == folders[1]:
            ending = self.mask_suffix
            masks = {stem: name for stem, name in images.items() if stem.endswith(ending)}
            images = {stem: name for stem, name in images.items() if not stem.endswith(ending)}
        wanted = {stem + self.mask_suffix: stem for stem in images}
        alone = [stem for mask, stem in wanted.items() if mask not in masks]
        refuse(f"images of {folders[0]} have no mask in {folders[1]}", alone)
        refuse(f"masks of {folders[1]} have no image in {folders[0]}", [mask for mask in masks if mask not in wanted])
        if not images:
            raise UserError(f"PairedFolders: {folders[0]} has no images")
        above = os.path.commonpath([self.images, self.masks]).partition("{split}")[0]
        return MaskedExamples(
            os.path.basename(above.rstrip(os.sep)) or "images",
            split,
            self.classes,
            [os.path.join(folders[0], name) for name in images.values()],
            [os.path.join(folders[1], masks[stem + self.mask_suffix]) for stem in images],
            self._values,
            self.channels,
        )


def by_stem(folder: str) -> dict[str, str]:
    """{name without extension: file name} of the images in a folder, sorted. UserError for anything else in it."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
    except OSError as error:
        raise UserError(f"{error.filename} cannot be read: {error.strerror}") from error
    found: dict[str, str] = {}
    strange = []
    for name in names:
        stem, extension = os.path.splitext(name)
        if name.lower() in LITTER:
            continue
        if extension.lower() not in EXTENSIONS:
            strange.append(name)
        elif stem in found:
            raise UserError(f"{folder} has two images of one name, {found[stem]} and {name}; remove one")
        else:
            found[stem] = name
    if strange:
        raise UserError(
            f"{folder} has entries that are not images by their extension ({some(strange)}); move them away"
        )
    return found


def refuse(what: str, names: list[str]) -> None:
    """Raises UserError with the number and the first of these names, if there are any."""
    if names:
        raise UserError(f"{len(names)} {what}: {some(names)}")


def check_channels(source, channels: int) -> None:
    if channels not in (1, 3):
        raise UserError(f"{type(source).__name__}: channels must be 1 (grey) or 3 (RGB), not {channels}")


def _splits_beside(pattern: str) -> str:
    """What there is in place of {split}, if that is the name of a folder."""
    parent, _, rest = pattern.partition(f"{os.sep}{{split}}")
    if (not rest.startswith(os.sep) and rest) or not os.path.isdir(parent):
        return ""
    there = [name for name in subfolders(parent) if os.path.isdir(pattern.replace("{split}", name))]
    return f"; for {{split}} there is {some(there)}" if there else ""
