"""Composed images: cutouts pasted on grounds, any number of them, with labels, boxes and masks that are known exactly.

After Dwibedi, Misra & Hebert 2017 (Cut, paste and learn), which trains detectors on such images. Departures: edges are
blended by the cutout's own transparency alone, grounds are made up unless there are photos, and no object reaches over
the image's edge.
"""

import functools
import os
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np

from jaxcnn.data import cutouts
from jaxcnn.data.deformation import deform, draw, visible
from jaxcnn.data.draws import philox_key
from jaxcnn.data.examples import Example, Examples, check_index, check_split
from jaxcnn.data.folder import EXTENSIONS, digest_of_files
from jaxcnn.data.images import decode
from jaxcnn.data.splits import sliced
from jaxcnn.errors import UserError
from jaxcnn.files import read_bytes

NUMBERS = {"train": 1, "validation": 2, "test": 3}
"""Of the splits: part of the random key, never to be changed."""
TRIES = 30
"""Places that are tried for an object before it is left out."""
FORM = "1"
"""Of the images: another number if other code makes other ones."""


@dataclass(frozen=True)
class ComposedCutouts:
    """PATH/CLASS/*.png, photos of objects with a transparent ground, pasted on grounds: boxes, masks and deformed
    objects in any number, a pure function of (seed, split, index).

    Splits are "train", "validation" and "test", and parts of these (splits.py). They show different cutouts: of every
    five of a class in the order of their names the first three are in "train", the fourth in "validation" and the fifth
    in "test"; with `shared_cutouts` all show all of them, in other places and other forms.

    An example has "boxes" and "classes", a "label" if each image has one object, and with `mask` the class of each
    pixel. A box is around what is seen of an object. If there is no room for another object it is left out; the first
    one is always there.

    Example:
        source = ComposedCutouts("cutouts", (96, 96, 3), objects=(1, 4), rotation=30, deformation=0.05)
        image, boxes = (source.open("train")[7][name] for name in ("image", "boxes"))
    """

    slices: ClassVar[bool] = True

    path: str
    """Made absolute at once, so that a stored run finds its images from anywhere."""
    image_shape: tuple[int, int, int] = (96, 96, 3)
    """(height, width, channels); three channels."""
    objects: tuple[int, int] = (1, 1)
    """The least and the most objects of an image. The classes of images with one follow each other."""
    size: tuple[float, float] = (0.4, 0.8)
    """The least and the greatest longer side of an object, in parts of the image's shorter side; less if a turned or
    bent one does not fit."""
    rotation: float = 0.0
    """Degrees, at most, to either side."""
    mirror: bool = True
    """Whether half of the objects are mirrored."""
    deformation: float = 0.0
    """How far objects are bent: the deviation of U-Net's smooth fields (deformation.py), in parts of an object's longer
    side. 0.05 is seen, 0.1 is much."""
    overlap: float = 0.2
    """The share of the smaller of two boxes that may lie in the other; later objects lie above."""
    backgrounds: str | None = None
    """A folder of photos, with the folders inside it; of five, as of the cutouts, one is in "validation" and one in
    "test". None: made-up grounds, smooth colors with noise."""
    mask: bool = False
    """Whether examples have masks. Class 0 is then "background", which is no object's."""
    shared_cutouts: bool = False
    """Whether all splits show the same cutouts, so that a net is asked about objects that it knows in other forms."""
    train: int = 4000
    """Examples of "train"."""
    test: int = 1000
    """Of "test", and of "validation"."""
    seed: int = 0

    def __post_init__(self):
        object.__setattr__(self, "path", os.path.abspath(os.path.expanduser(self.path)))
        if self.backgrounds is not None:
            object.__setattr__(self, "backgrounds", os.path.abspath(os.path.expanduser(self.backgrounds)))
        if len(self.image_shape) != 3 or min(self.image_shape[:2]) < 16 or self.image_shape[2] != 3:
            raise UserError(
                f"ComposedCutouts: image_shape is {self.image_shape}; it is (height, width, 3), with sides of at least "
                "16 pixels"
            )
        for name, low, high in (("objects", 1, 100), ("size", 0.05, 1.0)):
            least, most = getattr(self, name)
            if not low <= least <= most <= high:
                raise UserError(
                    f"ComposedCutouts: {name} is {getattr(self, name)}; it is (least, most), from {low} to {high}"
                )
        for name, high in (("rotation", 180), ("deformation", 0.3), ("overlap", 1)):
            if not 0 <= getattr(self, name) <= high:
                raise UserError(f"ComposedCutouts: {name} is {getattr(self, name)}; it must be in 0 to {high}")
        for name in ("train", "test"):
            if getattr(self, name) < 1:
                raise UserError(f"ComposedCutouts: {name} must be at least 1, not {getattr(self, name)}")
        if not 0 <= self.seed < 2**64:
            raise UserError(f"ComposedCutouts: seed must be in [0, 2**64), not {self.seed}")

    def open(self, split: str, data_dir: str | None = None) -> Examples:
        """Split "train", "validation" or "test", or a part of one; `data_dir` is not used. Reads the cutouts.

        Raises:
          UserError: the folder is not as it should be: what is wrong, and in which file.
        """
        return sliced(self._open, split)

    def _open(self, split: str) -> "ComposedExamples":
        check_split(split, NUMBERS, "ComposedCutouts")
        return ComposedExamples(self, split)


class ComposedExamples:
    """Composed images of one split."""

    def __init__(self, source: ComposedCutouts, split: str):
        self.source, self.split, self.name = source, split, os.path.basename(source.path) or "cutouts"
        folders = cutouts.classes_of(source.path)
        self._first = int(source.mask)  # the class of an object
        self.classes = ("background",) * self._first + folders
        every = [cutouts.files_of(source.path, name) for name in folders]
        mine = [each if source.shared_cutouts else cutouts.chosen(each, split) for each in every]
        times = dict(cutouts.checked([file for each in mine for file in each]))
        self._cutouts = [[(file, times[file]) for file in each] for each in mine]
        self._grounds = [] if source.backgrounds is None else cutouts.chosen(photos_in(source.backgrounds), split)
        self._listed = [file for each in every for file in each]
        if source.objects == (1, 1):
            self.labels = self._first + np.arange(len(self)) % len(folders)

    @property
    def version(self) -> str:
        """Of the names and sizes of all cutouts and of this split's grounds: 12 hex digits behind the images' form."""
        return self._digest

    @functools.cached_property
    def _digest(self) -> str:
        files = self._listed + self._grounds

        def entry(i: int) -> tuple[str, str]:
            return "/".join(files[i].split(os.sep)[-2:]), files[i]

        return f"{FORM}-{digest_of_files(len(files), entry)}"

    def __len__(self) -> int:
        return self.source.train if self.split == "train" else self.source.test

    def __getitem__(self, i: int) -> Example:
        i = check_index(i, len(self))
        key = philox_key(self.source.seed, NUMBERS[self.split])
        rng = np.random.Generator(np.random.Philox(key=key, counter=np.array([0, 0, 0, i], np.uint64)))
        image = self._ground(rng).astype(np.float32)
        owner, kinds = np.zeros(image.shape[:2], np.int32), []
        for kind, picture, (left, top) in self._objects(rng, i):
            kinds.append(kind)
            place = slice(top, top + picture.shape[0]), slice(left, left + picture.shape[1])
            opacity = picture[..., 3:] / np.float32(255)
            image[place] += opacity * (picture[..., :3] - image[place])
            owner[place][visible(picture)] = len(kinds)
        boxes, classes = [], []
        mask = np.zeros(owner.shape, np.uint8)
        for number, kind in enumerate(kinds, 1):
            rows, columns = (np.flatnonzero((owner == number).any(axis)) for axis in (1, 0))
            if len(rows):  # another one may hide it
                boxes.append((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
                classes.append(self._first + kind)
                mask[owner == number] = self._first + kind
        example: Example = {
            "image": np.rint(image).astype(np.uint8),
            "boxes": np.array(boxes, np.float32).reshape(-1, 4),
            "classes": np.array(classes, np.int32),
        }
        if self.source.mask:
            example["mask"] = mask
        if self.source.objects == (1, 1):
            example["label"] = self._first + kinds[0]
        return example

    def where(self, i: int) -> str:
        """The example's place in the split."""
        return f"{self.name}/{self.split}[{i}]"

    def _objects(self, rng: np.random.Generator, i: int) -> list[tuple[int, np.ndarray, tuple[int, int]]]:
        """Number of the folder, deformed cutout and place (left, top) of each object, the lowest first."""
        source = self.source
        height, width, _ = source.image_shape
        side = min(height, width)
        size = (source.size[0] * side, source.size[1] * side)
        count = int(rng.integers(source.objects[0], source.objects[1] + 1))
        boxes: list[tuple[int, int, int, int]] = []
        found = []
        for number in range(count):
            kind = int(rng.integers(len(self._cutouts)))
            kind = i % len(self._cutouts) if number == 0 else kind
            cutout = self._cutouts[kind][int(rng.integers(len(self._cutouts[kind])))]
            drawn = draw(rng, size, source.rotation, source.mirror, source.deformation)
            picture = _fitted(deform(cutouts.load(*cutout), drawn), (height, width))
            room = (width - picture.shape[1], height - picture.shape[0])
            for left, top in (rng.uniform(size=(TRIES, 2)) * (np.array(room) + 1)).astype(int).tolist():
                box = (left, top, left + picture.shape[1], top + picture.shape[0])
                if all(_share(box, other) <= source.overlap for other in boxes):
                    boxes.append(box)
                    found.append((kind, picture, (left, top)))
                    break
        return found

    def _ground(self, rng: np.random.Generator) -> np.ndarray:
        """uint8 [H, W, 3]."""
        height, width, _ = self.source.image_shape
        if self._grounds:
            photo = decode(read_bytes(self._grounds[int(rng.integers(len(self._grounds)))]), 3)
            # The largest part of the image's shape, at a place of its own.
            scale = min(photo.shape[0] / height, photo.shape[1] / width)
            rows, columns = (max(1, int(scale * side)) for side in (height, width))
            top, left = (int(rng.integers(n + 1)) for n in (photo.shape[0] - rows, photo.shape[1] - columns))
            part = photo[top : top + rows, left : left + columns]
            return cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA)
        cells = int(rng.integers(2, 7))
        middle, spread = rng.uniform(60, 195, 3), rng.uniform(10, 50)
        coarse = middle + spread * rng.standard_normal((cells, cells, 3))
        smooth = cv2.resize(coarse.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
        noise = rng.uniform(0, 20) * rng.standard_normal((height, width, 1), np.float32)
        return np.clip(smooth + noise, 0, 255).astype(np.uint8)


def photos_in(folder: str) -> list[str]:
    """The paths of the photos in a folder and in those inside it, sorted. Raises UserError if there are fewer than
    five."""
    found = [
        os.path.join(place, name)
        for place, _, names in os.walk(folder)
        for name in names
        if name[0] != "." and name.lower().endswith(EXTENSIONS)
    ]
    if len(found) < cutouts.FEWEST:
        raise UserError(
            f"ComposedCutouts: backgrounds is {folder}, which has {len(found)} photos; {cutouts.FEWEST} are needed, "
            "since train, validation and test show different ones"
        )
    return sorted(found)


def _fitted(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A picture made smaller, if it must be, to fit (height, width)."""
    scale = min(1.0, *(most / side for most, side in zip(size, picture.shape[:2], strict=True)))
    if scale == 1:
        return picture
    width, height = (max(1, int(scale * side)) for side in (picture.shape[1], picture.shape[0]))
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)


def _share(box: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> float:
    """How much of the smaller of two boxes lies in the other."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    areas = [(each[2] - each[0]) * (each[3] - each[1]) for each in (box, other)]
    return max(0, width) * max(0, height) / min(areas)
