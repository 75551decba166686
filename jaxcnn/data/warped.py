"""Warped regions: proposals of photos cut out, each stretched to one square, as R-CNN classifies them.

Girshick, Donahue, Darrell & Malik 2014, sections 2.1 and 2.3 and appendix A; code: github.com/rbgirshick/rcnn.
"""

import dataclasses
from typing import Any, ClassVar

import numpy as np

from jaxcnn.data.examples import BrokenExample, Example, Examples, Source, check_index
from jaxcnn.data.proposals import without_proposals
from jaxcnn.data.splits import open_split
from jaxcnn.errors import UserError
from jaxcnn.parts import SOURCE, check_part

BACKGROUND = "background"
KEPT = 8
"""Decoded photos, more than threads that read a set into memory on most machines."""
_KEY = (0x77617270, 1)  # of the choice of regions: never change it


def warp_regions(
    image: np.ndarray, boxes: np.ndarray, size: int = 227, padding: int = 16, fill: int | tuple[int, ...] = 0
) -> np.ndarray:
    """Each box with what is around it, stretched to a square: uint8 [P, size, size, C].

    A box takes the inner `size - 2 * padding` pixels of its square, whatever its shape, and the image around it the
    others ("warp" with 16 pixels of context, appendix A). What lies outside of the image has the level `fill`: with the
    mean color a net reads zeros there, as in the released code.

    As rcnn_im_crop.m has it: the stretched box is rounded to whole pixels first, both ends included, so that it is a
    pixel larger than the box; sampling is bilinear without a filter. Departures: levels are rounded to whole numbers,
    and without padding boxes are rounded too.

    Args:
      image: uint8 [H, W, C].
      boxes: [P, 4], (xmin, ymin, xmax, ymax), edges in its pixels; each overlaps it.
      size: S.
      padding: in pixels of the square.
      fill: level of what lies outside, one or one per channel.

    Example: warp_regions(image, proposals[:100], fill=(124, 117, 104))
    """
    import cv2

    height, width, channels = image.shape
    warped = np.empty((len(boxes), size, size, channels), np.uint8)
    warped[:] = fill
    scale = size / (size - 2 * padding)
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    # MATLAB's pixels count from 1, and the last one belongs to the box.
    half = (boxes[:, 2:] - boxes[:, :2]) / 2
    center = boxes[:, :2] + 1 + half
    first, last = _rounded(center - half * scale), _rounded(center + half * scale)
    for row, ((x1, y1), (x2, y2)) in enumerate(zip(first.tolist(), last.tolist(), strict=True)):
        across, down = size / (x2 - x1 + 1), size / (y2 - y1 + 1)
        left, top = _round(max(0, 1 - x1) * across), _round(max(0, 1 - y1) * down)
        x1, y1, x2, y2 = max(x1, 1), max(y1, 1), min(x2, width), min(y2, height)
        columns = min(_round((x2 - x1 + 1) * across), size - left)
        rows = min(_round((y2 - y1 + 1) * down), size - top)
        if columns > 0 and rows > 0:
            window = image[y1 - 1 : y2, x1 - 1 : x2].astype(np.float32)
            stretched = cv2.resize(window, (columns, rows), interpolation=cv2.INTER_LINEAR)
            warped[row, top : top + rows, left : left + columns] = np.rint(stretched).reshape(rows, columns, channels)
    return warped


@dataclasses.dataclass(frozen=True)
class WarpedRegions:
    """Regions of photos as a set of classification, on which R-CNN fine-tunes its net (section 2.3).

    A region is a proposal or an object of the source's photos, warped. Its label is 1 + the class of the object that it
    overlaps most, if the IoU is at least 0.5, and else 0, "background". Any Classification experiment trains on it:

        photos = jc.WithProposals(jc.VOCDetection("bccd", CLASSES), "proposals.npz")
        source = jc.WarpedRegions(photos, size=32, padding=2)  # of 1 + len(CLASSES) classes

    Splits are those of the photos, and parts of these. All photos are read once when a split is opened, and its regions
    are then taken from the photos again: let them fit into memory by `Data(memory_limit=...)`, since out of it each
    region of a shuffled batch costs the decoding of its photo.

    Departure: backgrounds are chosen once, so many that `foreground` of all regions are objects; there, so many of
    every batch of 128.
    """

    slices: ClassVar[bool] = True

    source: Source
    """Of photos with boxes and proposals, such as WithProposals."""
    size: int = 227
    padding: int = 16
    """Pixels of the square that are around the box."""
    fill: tuple[int, ...] = (124, 117, 104)
    """Of what lies outside of the photo: the mean color, which MEAN_RGB makes zeros."""
    iou: float = 0.5
    foreground: float = 0.25

    def __post_init__(self):
        check_part("WarpedRegions.source", self.source, SOURCE)
        if not 0 <= 2 * self.padding < self.size:
            raise UserError(f"WarpedRegions: padding is {self.padding}, on both sides of a size of {self.size}")
        for field in ("iou", "foreground"):
            if not 0 < getattr(self, field) <= 1:
                raise UserError(f"WarpedRegions: {field} is {getattr(self, field)}; it must be above 0 and at most 1")

    def open(self, split: str, data_dir: str | None = None) -> Examples:
        """The regions of a split of the photos, or of a part of it."""
        pictures = open_split(without_proposals(self.source), split, data_dir)  # an image needs no second search
        return RegionExamples(open_split(self.source, split, data_dir), pictures, self)

    def warp(self, image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """Regions [P, 4] of a photo, uint8 [H, W, C] -> uint8 [P, size, size, C]."""
        fill = self.fill if image.shape[2] == len(self.fill) else self.fill[:1] * image.shape[2]
        return warp_regions(image, boxes, self.size, self.padding, fill)


class RegionExamples:
    """The regions of photos, photo by photo."""

    def __init__(self, photos: Examples, pictures: Examples, source: WarpedRegions):
        self.name, self.split = photos.name, photos.split
        self.classes = (BACKGROUND, *photos.classes)
        self.photos, self.pictures, self.source = photos, pictures, source
        self._kept: dict[int, np.ndarray] = {}
        counted = [regions_of(photos, photos[i]) for i in range(len(photos))]
        boxes = [np.zeros((0, 4), np.float32)] + [each.boxes for each in counted]
        labels = np.concatenate([np.zeros(0, np.int64)] + [each.labels(source.iou) for each in counted])
        photo = np.repeat(np.arange(len(photos)), [len(each.boxes) for each in counted])
        chosen = _chosen(labels, source.foreground)
        self._photo, self._boxes, self.labels = photo[chosen], np.concatenate(boxes)[chosen], labels[chosen]
        if (files := getattr(photos, "files", None)) is not None:
            self.files = np.asarray(files)[self._photo]

    @property
    def version(self) -> str:
        """Of the photos and their proposals."""
        return self.photos.version

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> Example:
        i = check_index(i, len(self))
        try:
            image = self._image(int(self._photo[i]))
        except BrokenExample as error:
            raise BrokenExample(i, error.where, error.cause) from error
        return {"image": self.source.warp(image, self._boxes[i : i + 1])[0], "label": int(self.labels[i])}

    def _image(self, photo: int) -> np.ndarray:
        """A photo, of which the newest few are kept: read in order, the regions of one come one after another."""
        image = self._kept.get(photo)
        if image is None:
            image = self.pictures[photo]["image"]
            self._kept = dict([*self._kept.items()][1 - KEPT :]) | {photo: image}  # a new one, since threads read it
        return image

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": {}}

    def where(self, i: int) -> str:
        """The photo and the region in it."""
        box = ", ".join(f"{side:g}" for side in self._boxes[i])
        return f"{self.photos.where(int(self._photo[i]))} ({box})"


@dataclasses.dataclass(frozen=True)
class PhotoRegions:
    """The regions of a photo: its objects, crowds left out, and then its proposals."""

    boxes: np.ndarray
    """float32 [R, 4]."""
    objects: int
    """How many are objects."""
    classes: np.ndarray
    """int32 [objects]."""
    overlaps: np.ndarray
    """float64 [R, objects], IoU with each object."""

    def labels(self, iou: float) -> np.ndarray:
        """int64 [R]: 1 + the class of the object that the region overlaps most, 0 if that is less than `iou`."""
        if not self.objects:
            return np.zeros(len(self.boxes), np.int64)
        return np.where(self.overlaps.max(1) >= iou, 1 + self.classes[self.overlaps.argmax(1)], 0).astype(np.int64)


def regions_of(photos: Examples, example: Example) -> PhotoRegions:
    """The regions of one of the photos. Raises UserError if it has no boxes or no proposals."""
    for part, remedy in (("boxes", "a source of boxes"), ("proposals", "WithProposals")):
        if part not in example:
            raise UserError(f"{photos.name}/{photos.split} has no {part}, of which regions are; give {remedy}")
    single = ~np.asarray(example.get("crowd", np.zeros(len(example["boxes"]), bool)))
    objects, proposals = example["boxes"][single], example["proposals"]
    boxes = np.concatenate([objects, proposals[(proposals[:, :2] < proposals[:, 2:]).all(1)]]).astype(np.float32)
    return PhotoRegions(boxes, len(objects), example["classes"][single], _overlaps(boxes, objects))


def _overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """IoU of boxes [R, 4] with others [G, 4], all with an area: float64 [R, G]."""
    boxes, others = boxes.astype(np.float64)[:, None], others.astype(np.float64)[None]
    sides = np.minimum(boxes[..., 2:], others[..., 2:]) - np.maximum(boxes[..., :2], others[..., :2])
    inside = np.maximum(sides, 0).prod(-1)
    areas = [(each[..., 2:] - each[..., :2]).prod(-1) for each in (boxes, others)]
    return inside / (areas[0] + areas[1] - inside)


def _chosen(labels: np.ndarray, foreground: float) -> np.ndarray:
    """The indices of all objects and of so many backgrounds that they are this share of all, or of all backgrounds."""
    there, none = np.flatnonzero(labels > 0), np.flatnonzero(labels == 0)
    wanted = round(len(there) * (1 - foreground) / foreground) if len(there) else len(none)
    words = np.random.Philox(key=np.array(_KEY, np.uint64)).random_raw(max(len(none), 1))[: len(none)]
    return np.sort(np.concatenate([there, none[np.argsort(words, kind="stable")[:wanted]]]))


def _rounded(values: np.ndarray) -> np.ndarray:
    """To the closest whole number, halves away from 0, as MATLAB does."""
    return (np.sign(values) * np.floor(np.abs(values) + 0.5)).astype(np.int64)


def _round(value: float) -> int:
    return int(value + 0.5)
