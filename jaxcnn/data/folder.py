"""Images in folders, one per class: PATH/SPLIT/CLASS/*.jpg, the layout of ImageNet as torchvision reads it, or
PATH/CLASS/*.jpg.
"""

import errno
import functools
import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from jaxcnn.data.encoded import encoded
from jaxcnn.data.examples import BrokenExample, Example, Examples, check_index, check_split
from jaxcnn.data.images import decode
from jaxcnn.data.splits import sliced
from jaxcnn.errors import UserError
from jaxcnn.files import read_bytes

JPEG = (".jpg", ".jpeg", ".jpe", ".jfif")
OTHERS = (".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".tga", ".avif")
EXTENSIONS = JPEG + OTHERS
LITTER = ("thumbs.db", "desktop.ini")  # what file managers leave behind
SPLITS = ("train", "training", "test", "testing", "val", "valid", "validation", "eval")  # never names of classes alone


@dataclass(frozen=True)
class Folder:
    """PATH/SPLIT/CLASS/*.{jpg,png,...}: the labels are the sorted names of the class folders of "train".

    PATH/CLASS/*.jpg works as well: split "train" is then the whole folder, to be cut into "train[:70%]" and so on
    (splits.py).

    Every other split must have the same class names, of which some may lack images or their folder; without a "train"
    folder a split's own names are the classes. Entries whose name starts with "." are ignored, as are Thumbs.db and
    desktop.ini, and files that lie next to the class folders; any other file in a class folder that has no image
    extension, any folder in a class folder, and a class of "train" without an image are errors, because a class that
    loses examples unseen is worse than a stop. Order: class, then file name, compared by code point, so that it is the
    same on every machine.
    """

    slices: ClassVar[bool] = True

    path: str
    """Made absolute at once, so that a stored run finds its images from anywhere."""
    channels: Literal[1, 3] = 3

    def __post_init__(self):
        if self.channels not in (1, 3):
            raise UserError(f"Folder: channels must be 1 (grey) or 3 (RGB), not {self.channels}")
        object.__setattr__(self, "path", os.path.abspath(os.path.expanduser(self.path)))

    def open(self, split: str, data_dir: str | None = None) -> Examples:
        """The examples of PATH/SPLIT, or of a part of it; `data_dir` is not used. Only lists the files: an image is
        read when it is asked for.
        """
        return self._open(split) if os.path.isdir(os.path.join(self.path, split)) else sliced(self._open, split)

    def _open(self, split: str) -> Examples:
        root = self.path
        layout = (
            f"images are expected as {root}/SPLIT/CLASS/NAME.jpg, SPLIT being for example train or test, "
            f"or as {root}/CLASS/NAME.jpg"
        )
        if not os.path.isdir(root):
            raise UserError(f"Folder: there is no folder {root}; {layout}. If it moved: --data.source.path NEW")
        names = subfolders(root)
        if not names:
            raise UserError(f"Folder: {root} has no split folders and no class folders; {layout}")
        if not any(subfolders(os.path.join(root, name)) for name in names):
            if set(names) <= set(SPLITS):
                raise UserError(f"Folder: {root} holds {some(names)}, which have no class folders inside; {layout}")
            if split != "train":
                raise UserError(
                    f"Folder: {root} has no split {split!r}: its folders ({some(names)}) are the classes of one split, "
                    f"'train' (`jaxcnn evaluate RUN --split train` takes all of it); {CUT}"
                )
            return FolderExamples(root, "", tuple(names), self.channels)
        if split not in names:
            try:
                check_split(split, names, f"Folder {root}")
            except UserError as error:
                raise UserError(f"{error}. {CUT}") from None
        classes = subfolders(os.path.join(root, split))
        if not classes:
            raise UserError(f"Folder: {root}/{split} has no class folders; {layout}")
        if split != "train" and "train" in names:
            train = subfolders(os.path.join(root, "train"))
            extra = sorted(set(classes) - set(train))
            if extra:
                missing = sorted(set(train) - set(classes))
                raise UserError(
                    f"Folder: the classes of {root}/{split} are not those of {root}/train, so that labels would differ"
                    + (f"; missing in {split}: {some(missing)}" if missing else "")
                    + f"; only in {split}: {some(extra)}"
                )
            classes = train
        return FolderExamples(root, split, tuple(classes), self.channels)


CUT = (
    'write what is to be tested: Data(..., test_splits=()) for nothing, or cut "train" in three, Data(..., '
    'train_split="train[:70%]", evaluation_splits=("train[70%:85%]",), test_splits=("train[85%:]",))'
)


class FolderExamples:
    """The images of ROOT/FOLDER/CLASS/*; `folder` "" stands for a root that holds the classes, the split "train"."""

    def __init__(self, root: str, folder: str, classes: tuple[str, ...], channels: int):
        self.name, self.split, self.classes = os.path.basename(root) or "folder", folder or "train", classes
        self._folder, self._channels = os.path.join(root, folder), channels
        files, labels = [], []
        for label, name in enumerate(classes):
            found = image_files(os.path.join(self._folder, name), may_be_empty=self.split != "train")
            files += found
            labels += [label] * len(found)
        # Bytes of one width, not a list of str: a million names pickle to each worker in milliseconds.
        self._files, self.labels = np.array([os.fsencode(name) for name in files]), np.array(labels, np.int32)

    @property
    def version(self) -> str:
        """Of the names and sizes of the files, since reading all pixels would take hours: 12 hex digits."""
        return self._digest

    @functools.cached_property
    def _digest(self) -> str:
        def entry(i: int) -> tuple[str, str]:
            path = self.where(i)
            return f"{self.classes[self.labels[i]]}/{os.path.basename(path)}", path

        return digest_of_files(len(self), entry)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> Example:
        return self._read(i, decode)

    def encoded(self, i: int) -> Example:
        """Example `i`, its image encoded if it can be decoded in part (data/encoded.py). Raises as [i]."""
        return self._read(i, encoded)

    def _read(self, i: int, decoding: Callable[[bytes, int], Any]) -> Example:
        i = check_index(i, len(self))
        try:
            return {"image": decoding(read_bytes(self.where(i)), self._channels), "label": int(self.labels[i])}
        except (OSError, ValueError) as cause:
            raise BrokenExample(i, self.where(i), str(cause)) from cause

    def where(self, i: int) -> str:
        """The path of the file."""
        return os.path.join(self._folder, self.classes[self.labels[i]], os.fsdecode(self._files[i]))


def digest_of_files(count: int, entry: Callable[[int], tuple[str, str]]) -> str:
    """12 hex digits of the names and sizes of files; `entry` gives the name and the path of each."""

    def line(i: int) -> bytes:
        name, path = entry(i)
        try:
            size = os.stat(path).st_size
        except OSError:  # a link to nowhere is met again where it is read
            size = -1
        return os.fsencode(f"{name} {size}\n")

    digest, chunk = hashlib.sha256(), 4096
    with ThreadPoolExecutor(8) as pool:  # a network file system answers each question late
        for start in range(0, count, chunk):
            for each in pool.map(line, range(start, min(start + chunk, count))):
                digest.update(each)
    return digest.hexdigest()[:12]


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


def image_files(path: str, may_be_empty: bool = False) -> list[str]:
    """Sorted names of the images in one class folder; UserError for anything that is neither an image nor litter."""
    if may_be_empty and not os.path.isdir(path):
        return []
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
    if not entries and not may_be_empty:
        raise UserError(
            f"Folder: the class folder {path} has no images; add some, or remove the class from every split"
        )
    return sorted(name for name, _ in entries)


def some(names: list[str]) -> str:
    """The first five names, and how many more there are."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
