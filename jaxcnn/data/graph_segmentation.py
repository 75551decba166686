"""Graph-based segmentation: an image as regions of pixels that differ little from their neighbors.

Felzenszwalb & Huttenlocher 2004, "Efficient graph-based image segmentation".
"""

from array import array

import numpy as np

PARTS = 32
"""Of the edges; before each it is looked which of them can still do anything."""


def segment(image: np.ndarray, scale: float, sigma: float = 0.8, min_size: int = 50) -> np.ndarray:
    """The region of each pixel, int32 [H, W], numbered from 0 in the order of the rows.

    Pixels are joined to their eight neighbors by edges as heavy as the distance of their colors (section 4). From the
    lightest edge on, two regions merge if it weighs no more than the heaviest edge within either of them plus `scale`
    over that region's size (section 3.2); then regions smaller than `min_size` merge with a neighbor, over the lightest
    edges first, as the released code does.

    An edge within a region does nothing, nor does one at a region that is finished, whose heaviest edge and size allow
    none as heavy as this: it never grows again (lemma 1). Most edges are such, and are found many at a time, so that
    the loop is over about as many edges as there are pixels.

    Args:
      image: [H, W, C], levels 0..255 or others of the same order.
      scale: k, the larger the larger the regions.
      sigma: of the Gaussian that smooths the image before; 0: none.
      min_size: in pixels.

    Example: segment(photo, scale=100).max() + 1 is the number of regions.
    """
    import cv2

    height, width = image.shape[:2]
    smooth = np.asarray(image, np.float32).reshape(height, width, -1)
    if sigma:
        smooth = cv2.GaussianBlur(smooth, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE).reshape(smooth.shape)
    first, second, weights = _edges(smooth)
    count = height * width
    # Arrays that Python reads in half of the time that NumPy's take, and that NumPy sees as its own.
    parent, size, limit = array("q", range(count)), array("q", [1]) * count, array("d", [scale]) * count
    parents, sizes, limits = (np.frombuffer(each, each.typecode) for each in (parent, size, limit))

    def root(pixel: int) -> int:
        while parent[pixel] != pixel:
            parent[pixel] = pixel = parent[parent[pixel]]
        return pixel

    def join(one: int, other: int) -> int:
        if size[one] < size[other]:
            one, other = other, one
        parent[other] = one
        size[one] += size[other]
        return one

    for part in np.array_split(np.arange(len(weights)), PARTS):
        if not len(part):
            continue  # fewer edges than parts
        all_roots = roots(parents)
        one, other = all_roots[first[part]], all_roots[second[part]]
        # A region grows by the lighter edges of this part before a heavier one comes: finished is for the lightest.
        counts = (one != other) & (weights[part[0]] <= np.minimum(limits[one], limits[other]))
        chosen = part[counts]
        for a, b, weight in zip(*(each[chosen].tolist() for each in (first, second, weights)), strict=True):
            one, other = root(a), root(b)
            if one != other and weight <= limit[one] and weight <= limit[other]:
                joined = join(one, other)
                limit[joined] = weight + scale / size[joined]
    all_roots = roots(parents)
    one, other = all_roots[first], all_roots[second]
    chosen = np.flatnonzero((one != other) & (np.minimum(sizes[one], sizes[other]) < min_size))
    for a, b in zip(one[chosen].tolist(), other[chosen].tolist(), strict=True):
        one, other = root(a), root(b)
        if one != other and (size[one] < min_size or size[other] < min_size):
            join(one, other)
    _, where, numbers = np.unique(roots(parents), return_index=True, return_inverse=True)
    return np.argsort(np.argsort(where))[numbers].reshape(height, width).astype(np.int32)


def roots(parents: np.ndarray) -> np.ndarray:
    """The root of every pixel."""
    found = parents
    while not np.array_equal(further := found[found], found):
        found = further
    return found


def _edges(image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both pixels and the weight of every pair of neighbors, the lightest first."""
    height, width = image.shape[:2]
    numbers = np.arange(height * width).reshape(height, width)
    firsts, seconds, weights = [], [], []
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        here = (slice(0, height - down), slice(max(-right, 0), width - max(right, 0)))
        there = (slice(down, height), slice(max(right, 0), width + min(right, 0)))
        firsts.append(numbers[here].ravel())
        seconds.append(numbers[there].ravel())
        weights.append(np.sqrt(np.square(image[here] - image[there]).sum(-1)).ravel())
    order = np.argsort(np.concatenate(weights), kind="stable")
    first, second, weight = (np.concatenate(each)[order] for each in (firsts, seconds, weights))
    return first, second, weight.astype(np.float64)
