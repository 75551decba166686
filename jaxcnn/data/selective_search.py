"""Selective search (Uijlings, van de Sande, Gevers & Smeulders 2013): boxes around what segments of an image merge to.

The regions of a graph-based segmentation merge, the two most similar neighbors first, until one is left; the box of
every region on the way is a proposal. It is what R-CNN and Fast R-CNN look at.
"""

import dataclasses
import heapq
import itertools
from typing import Literal, get_args

import numpy as np

from jaxcnn.data.graph_segmentation import segment
from jaxcnn.errors import UserError, did_you_mean

Color = Literal["hsv", "lab", "rgb"]
Similarity = Literal["color", "texture", "size", "fill"]
COLOR_BINS, DIRECTIONS, TEXTURE_BINS = 25, 8, 10
"""Of the histograms (section 3.2)."""
_KEY = (0x73656C656374, 1)  # of the order of proposals: never change it


@dataclasses.dataclass(frozen=True)
class SelectiveSearch:
    """Proposals of one image, without any training: SelectiveSearch()(image) is float32 [P, 4].

    There is a hierarchy for each color space, scale and set of similarities. A region counts from the top of its
    hierarchy; that number times a random one, the same for every image, is the order of all (section 3.3), and a box is
    kept once. Nothing is drawn: the same image has the same proposals on every machine.

    The defaults are two hierarchies of an image of at most 320 pixels a side, for small runs: about half a second a
    photo on a CPU. The paper's "fast" mode is `colors=("hsv", "lab")`, `scales=(50, 100)`, with the two sets of
    similarities that are the default here, on whole photos.

    Departures: texture is the derivatives of a Gaussian along the axes and the diagonals, as in the paper, but of
    differences of pixels after smoothing with a deviation of 1; colors are OpenCV's, each channel in 0..255.

    Example: SelectiveSearch(scales=(50, 100, 150, 300))(image)[:100]
    """

    colors: tuple[Color, ...] = ("hsv",)
    scales: tuple[float, ...] = (50.0,)
    """k of the segmentation; its smallest region has as many pixels (in the released code too)."""
    similarities: tuple[tuple[Similarity, ...], ...] = (
        ("color", "texture", "size", "fill"),
        ("texture", "size", "fill"),
    )
    """What each hierarchy adds up (section 3.2, equations 2 to 6)."""
    sigma: float = 0.8
    """Of the smoothing before the segmentation."""
    longest: int = 320
    """Pixels: a larger image is shrunk to this longer side before; boxes are told in its own pixels."""
    smallest: float = 4.0
    """Pixels of the image that is searched: a box with a shorter side is left out (the released code: 20)."""

    def __post_init__(self):
        for field, given, kind in (
            ("colors", self.colors, Color),
            *(("similarities", s, Similarity) for s in self.similarities),
        ):
            for each in given:
                if each not in (choices := get_args(kind)):
                    hint = did_you_mean(str(each), choices) or ";"
                    raise UserError(f"SelectiveSearch: {field} has {each!r}{hint} there is {', '.join(choices)}")
        for field in ("colors", "scales", "similarities"):
            if not getattr(self, field):
                raise UserError(f"SelectiveSearch: {field} is empty; give one at least")
        if min(self.scales) <= 0 or self.longest < 8 or self.sigma < 0:
            raise UserError("SelectiveSearch: scales must be above 0, longest at least 8 and sigma at least 0")

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """uint8 [H, W, C] -> float32 [P, 4], (xmin, ymin, xmax, ymax) in its pixels, the best first."""
        height, width = image.shape[:2]
        small = _shrunk(image, self.longest)
        boxes, places = [], []
        for color in self.colors:
            converted = _converted(small, color)
            texture = _textures(converted)
            for scale in self.scales:
                regions = segment(converted, scale, self.sigma, int(scale))
                measured = Regions(converted, texture, regions)
                for similarities in self.similarities:
                    found = hierarchy(measured, similarities)
                    boxes.append(found)
                    places.append(np.arange(len(found), 0, -1))  # the last merge, the whole image, is the first
        every, place = np.concatenate(boxes), np.concatenate(places)
        words = np.random.Philox(key=np.array(_KEY, np.uint64)).random_raw(len(every))
        every = every[np.argsort(place * (words >> np.uint64(11)).astype(np.float64), kind="stable")]
        large = (every[:, 2:] - every[:, :2]).min(1) >= min(self.smallest, *small.shape[:2])
        every = every[large]
        every = every[np.sort(np.unique(every, axis=0, return_index=True)[1])]
        ratio = np.array([width / small.shape[1], height / small.shape[0]] * 2)
        return (every * ratio).astype(np.float32)


class Regions:
    """What is known of the regions of a segmentation: sizes, boxes, histograms and neighbors."""

    def __init__(self, image: np.ndarray, textures: np.ndarray, regions: np.ndarray):
        """`image` is uint8 [H, W, C], `textures` uint8 [H, W, C * DIRECTIONS], bins, `regions` int32 [H, W]."""
        count = int(regions.max()) + 1
        flat = regions.ravel()
        self.pixels = regions.size
        self.sizes = np.bincount(flat, minlength=count).astype(np.float64)
        rows, columns = np.indices(regions.shape)
        self.boxes = np.zeros((count, 4), np.int64)
        self.boxes[:, :2] = regions.size
        for side, values in ((0, columns), (1, rows)):
            np.minimum.at(self.boxes[:, side], flat, values.ravel())
            np.maximum.at(self.boxes[:, side + 2], flat, values.ravel() + 1)
        bins = image.astype(np.int64) * COLOR_BINS // 256
        self.colors = _histograms(flat, bins.reshape(-1, bins.shape[-1]), COLOR_BINS, count)
        self.textures = _histograms(flat, textures.reshape(-1, textures.shape[-1]), TEXTURE_BINS, count)
        pairs = np.concatenate(
            [
                np.stack([regions[:, :-1].ravel(), regions[:, 1:].ravel()], 1),
                np.stack([regions[:-1].ravel(), regions[1:].ravel()], 1),
            ]
        )
        pairs = np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1)
        self.neighbors = [tuple(pair) for pair in np.unique(pairs, axis=0).tolist()]


def hierarchy(regions: Regions, similarities: tuple[Similarity, ...]) -> np.ndarray:
    """The boxes of the regions, then of what they merge to, the two most similar neighbors first: int64
    [2 R - 1, 4]. Equally similar pairs merge in the order of their numbers.

    Similarities are the sums of (section 3.2): the histograms' intersection for color and texture, 1 less the part of
    the image that both take for size, and 1 less the part of it that the box around both has beside them for fill.
    """
    count = len(regions.sizes)
    total = 2 * count - 1
    sizes, boxes = np.zeros(total), np.zeros((total, 4), np.int64)
    sizes[:count], boxes[:count] = regions.sizes, regions.boxes
    histograms = [getattr(regions, f"{name}s") for name in ("color", "texture") if name in similarities]
    # Both histograms side by side: the sum of their minima is that of the two intersections.
    joined = np.concatenate([*histograms, np.zeros((count, 0))], 1)
    histogram = np.zeros((total, joined.shape[1]))
    histogram[:count] = joined
    pixels, by_size, by_fill = regions.pixels, "size" in similarities, "fill" in similarities

    def compare(one: int, others: list[int]) -> np.ndarray:
        found = np.minimum(histogram[one], histogram[others]).sum(1)
        both = sizes[one] + sizes[others]
        if by_size:
            found += 1 - both / pixels
        if by_fill:
            low = np.minimum(boxes[one, :2], boxes[others, :2])
            high = np.maximum(boxes[one, 2:], boxes[others, 2:])
            found += 1 - ((high - low).prod(1) - both) / pixels
        return found

    near: list[set[int]] = [set() for _ in range(total)]
    for one, other in regions.neighbors:
        near[one].add(other)
        near[other].add(one)
    heap = []
    for one in range(count):
        others = sorted(other for other in near[one] if other > one)
        if others:
            heap += [(-s, one, other) for s, other in zip(compare(one, others).tolist(), others, strict=True)]
    heapq.heapify(heap)
    alive, next_number = [True] * count + [False] * (count - 1), itertools.count(count)
    while heap:
        _, one, other = heapq.heappop(heap)
        if not (alive[one] and alive[other]):
            continue
        new = next(next_number)
        alive[one] = alive[other] = False
        alive[new] = True
        sizes[new] = sizes[one] + sizes[other]
        histogram[new] = (sizes[one] * histogram[one] + sizes[other] * histogram[other]) / sizes[new]
        boxes[new, :2] = np.minimum(boxes[one, :2], boxes[other, :2])
        boxes[new, 2:] = np.maximum(boxes[one, 2:], boxes[other, 2:])
        near[new] = (near[one] | near[other]) - {one, other}
        others = sorted(near[new])
        for each in others:
            near[each] -= {one, other}
            near[each].add(new)
        if others:
            for similarity, each in zip(compare(new, others).tolist(), others, strict=True):
                heapq.heappush(heap, (-similarity, each, new))
    return boxes


def _histograms(regions: np.ndarray, bins: np.ndarray, number: int, count: int) -> np.ndarray:
    """Bins [N, channels] in 0..number of the pixels of each region -> [count, channels * number], that sum to 1."""
    channels = bins.shape[1]
    flat = (regions[:, None] * channels + np.arange(channels)) * number + bins
    found = np.bincount(flat.ravel(), minlength=count * channels * number).reshape(count, -1).astype(np.float64)
    return found / found.sum(1, keepdims=True)


def _textures(image: np.ndarray) -> np.ndarray:
    """uint8 [H, W, C] -> the bins of the derivatives of each channel in eight directions, uint8 [H, W, C * 8]."""
    import cv2

    smooth = cv2.GaussianBlur(image.astype(np.float32), (0, 0), 1.0, borderType=cv2.BORDER_REPLICATE)
    smooth = smooth.reshape(image.shape)
    along = np.gradient(smooth, axis=(0, 1)) if min(image.shape[:2]) > 1 else [np.zeros_like(smooth)] * 2
    diagonal = [(along[0] + along[1]) / np.sqrt(2), (along[0] - along[1]) / np.sqrt(2)]
    signed = [*along, *diagonal]
    every = np.concatenate([np.maximum(sign * each, 0) for each in signed for sign in (1, -1)], -1)
    most = every.max((0, 1), keepdims=True)
    return np.minimum(every / np.where(most > 0, most, 1) * TEXTURE_BINS, TEXTURE_BINS - 1).astype(np.uint8)


def _converted(image: np.ndarray, color: Color) -> np.ndarray:
    """uint8 [H, W, C] in this color space; an image of one channel stays as it is."""
    import cv2

    if color == "rgb" or image.shape[2] != 3:
        return image
    return cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL if color == "hsv" else cv2.COLOR_RGB2LAB)


def _shrunk(image: np.ndarray, longest: int) -> np.ndarray:
    import cv2

    height, width = image.shape[:2]
    ratio = longest / max(height, width)
    if ratio >= 1:
        return image
    size = (max(round(width * ratio), 1), max(round(height * ratio), 1))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA).reshape(size[1], size[0], image.shape[2])
