"""Images in folders, one per class: PATH/SPLIT/CLASS/*.jpg, the layout of ImageNet as torchvision reads it."""

import errno
import hashlib
import os
from dataclasses import dataclass
from typing import Literal

import numpy as np

from jaxcnn.data.examples import BrokenExample, Example, check_index, check_split
from jaxcnn.data.images import decode
from jaxcnn.errors import UserError
from jaxcnn.files import read_bytes

JPEG = (".jpg", ".jpeg", ".jpe", ".jfif")
OTHERS = (".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".tga", ".avif")
EXTENSIONS = JPEG + OTHERS
LITTER = ("thumbs.db", "desktop.ini")  # what file managers leave behind


@dataclass(frozen=True)
class Folder:
    """PATH/SPLIT/CLASS/*.{jpg,png,...}: the labels are the sorted names of the class folders of "train".

    Every other split must have the same class names; without a "train" folder a split's own names are the classes.
    Entries whose name starts with "." are ignored, as are Thumbs.db and desktop.ini, and files that lie next to the
    class folders; any other file in a class folder that has no image extension, any folder in a class folder, and a
    class without an image are errors, because a class that loses examples unseen is worse than a stop. Order: class,
    then file name, compared by code point, so that it is the same on every machine.
    """

    path: str
    channels: Literal[1, 3] = 3

    def __post_init__(self):
        if self.channels not in (1, 3):
            raise UserError(f"Folder: channels must be 1 (grey) or 3 (RGB), not {self.channels}")

    def open(self, split: str, data_dir: str | None = None) -> "FolderExamples":
        """The examples of PATH/SPLIT; `data_dir` is not used. Only lists the files: an image is read when it is asked
        for.
        """
        root = os.path.abspath(os.path.expanduser(self.path))
        layout = f"images are expected as {root}/SPLIT/CLASS/NAME.jpg, SPLIT being for example train or test"
        if not os.path.isdir(root):
            raise UserError(f"Folder: there is no folder {root}; {layout}")
        splits = subfolders(root)
        if not splits:
            raise UserError(f"Folder: {root} has no split folders; {layout}")
        if split not in splits and not any(subfolders(os.path.join(root, name)) for name in splits):
            raise UserError(f"Folder: {root} holds {some(splits)}, which have no class folders inside; {layout}")
        check_split(split, splits, f"Folder {root}")
        classes = subfolders(os.path.join(root, split))
        if not classes:
            raise UserError(f"Folder: {root}/{split} has no class folders; {layout}")
        if split != "train" and "train" in splits:
            train = subfolders(os.path.join(root, "train"))
            if train != classes:
                missing, extra = sorted(set(train) - set(classes)), sorted(set(classes) - set(train))
                raise UserError(
                    f"Folder: the classes of {root}/{split} are not those of {root}/train, so that labels would differ"
                    + (f"; missing in {split}: {some(missing)}" if missing else "")
                    + (f"; only in {split}: {some(extra)}" if extra else "")
                )
        return FolderExamples(root, split, tuple(classes), self.channels)


class FolderExamples:
    def __init__(self, root: str, split: str, classes: tuple[str, ...], channels: int):
        self.name, self.split, self.classes = os.path.basename(root) or "folder", split, classes
        self._root, self._channels = root, channels
        files, labels = [], []
        for label, name in enumerate(classes):
            found = image_files(os.path.join(root, split, name))
            files += found
            labels += [label] * len(found)
        # Bytes of one width, not a list of str: a million names pickle to each worker in milliseconds.
        self._files, self._labels = np.array([os.fsencode(name) for name in files]), np.array(labels, np.int32)
        listing = "".join(f"{classes[label]}/{name}\n" for label, name in zip(labels, files, strict=True))
        self.version = hashlib.sha256(os.fsencode(listing)).hexdigest()[
            :12
        ]  # of the names: reading all pixels would take hours

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, i: int) -> Example:
        i = check_index(i, len(self))
        try:
            return {"image": decode(read_bytes(self.where(i)), self._channels), "label": int(self._labels[i])}
        except (OSError, ValueError) as cause:
            raise BrokenExample(i, self.where(i), str(cause)) from cause

    def where(self, i: int) -> str:
        """The path of the file."""
        return os.path.join(self._root, self.split, self.classes[self._labels[i]], os.fsdecode(self._files[i]))


def subfolders(path: str) -> list[str]:
    """Sorted names of the folders in `path` that are not hidden; links to folders count."""
    try:
        with os.scandir(path) as entries:
            return sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir())
    except OSError as error:
        raise UserError(_unreadable(error)) from error


def _unreadable(error: OSError) -> str:
    if error.errno == errno.ELOOP:
        return f"Folder: {error.filename} is a link that leads back to itself; remove it, or let it lead to a folder"
    return f"Folder: {error.filename} cannot be read: {error.strerror}"


def _is_folder(entry: os.DirEntry) -> bool:
    """A link that leads nowhere is met again where its image is read."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def image_files(path: str) -> list[str]:
    """Sorted names of the images in one class folder; UserError for anything that is neither an image nor litter."""
    try:
        with os.scandir(path) as found:
            entries = [(entry.name, _is_folder(entry)) for entry in found if not entry.name.startswith(".")]
    except OSError as error:
        raise UserError(_unreadable(error)) from error
    entries = [(name, is_folder) for name, is_folder in entries if name.lower() not in LITTER]
    folders = sorted(name for name, is_folder in entries if is_folder)
    if folders:
        raise UserError(
            f"Folder: the class folder {path} has folders inside ({some(folders)}); move their images up into it"
        )
    strange = sorted(name for name, _ in entries if not name.lower().endswith(EXTENSIONS))
    if strange:
        raise UserError(
            f"Folder: {path} has files that are not images by their extension ({some(strange)}); "
            f"move them away, or rename them to one of {' '.join(EXTENSIONS)}"
        )
    if not entries:
        raise UserError(
            f"Folder: the class folder {path} has no images; add some, or remove the class from every split"
        )
    return sorted(name for name, _ in entries)


def some(names: list[str]) -> str:
    """The first five names, and how many more there are."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
