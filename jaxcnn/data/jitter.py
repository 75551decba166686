"""Jitter: the augmentation of YOLO and of Darknet's other detectors, of the image's edges and of its colors."""

import math
from dataclasses import dataclass

import numpy as np

from jaxcnn.data.arguments import check_levels, check_method, check_size, levels, pair
from jaxcnn.data.geometry import Geometry
from jaxcnn.data.images import Method
from jaxcnn.data.transforms import Geometric
from jaxcnn.errors import UserError


@dataclass(frozen=True)
class EdgeJitter(Geometric):
    """Moves each edge of the image by up to `jitter` of its side, in or out, and resizes what lies between to `size`.

    "Random scaling and translations of up to 20% of the original image size" (Redmon et al. 2016, section 2.2), as the
    released code does them (data.c, load_data_detection): the four edges apart, so that objects change their shape too.
    What comes in from outside is `value`.

    Example: EdgeJitter((448, 448)) is YOLO's.
    """

    size: int | tuple[int, int]
    jitter: float = 0.2
    value: int | tuple[int, ...] = 0
    method: Method = "bilinear"

    def __post_init__(self):
        check_size(self, "size", self.size)
        check_levels(self, "value", self.value)
        check_method(self)
        if not 0 <= self.jitter < 0.5:
            raise UserError(f"EdgeJitter: jitter is {self.jitter}; it is a share of the side, from 0 to less than 0.5")

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> Geometry:
        height, width = shape[:2]
        moves = rng.uniform(-self.jitter, self.jitter, 4) * (width, height, width, height)
        left, top, right, bottom = (round(float(move)) for move in moves)
        window = (top, left, max(1, height - bottom - top), max(1, width - right - left))
        value = levels(self, "value", self.value, shape)
        return Geometry(window=window, size=pair(self.size), value=value, method=self.method)


@dataclass(frozen=True)
class HSVJitter:
    """Changes the hue, saturation and value (exposure) of an image in HSV.

    "Exposure and saturation by up to a factor of 1.5" (Redmon et al. 2016, section 2.2), the hue as in yolov1.cfg: the
    factor is uniform in [1, most] and inverted half of the time, the hue is turned by a uniform part of the circle in
    [-hue, hue]. Of a gray image the value alone changes.

    Example: HSVJitter() is YOLO's; HSVJitter(hue=0) keeps the hue.
    """

    hue: float = 0.1
    saturation: float = 1.5
    exposure: float = 1.5

    def __post_init__(self):
        if not 0 <= self.hue <= 0.5:
            raise UserError(f"HSVJitter: hue is {self.hue}; it is a part of the circle, from 0 to 0.5")
        for field in ("saturation", "exposure"):
            if not 1 <= getattr(self, field) < math.inf:
                raise UserError(f"HSVJitter: {field} is {getattr(self, field)}; it is a factor of at least 1")

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        turn = rng.uniform(-self.hue, self.hue)
        saturation, exposure = _factor(self.saturation, rng), _factor(self.exposure, rng)
        if image.shape[2] == 1:
            return np.clip(np.rint(image * np.float32(exposure)), 0, 255).astype(np.uint8)
        import cv2  # a fifth of a second that few runs need

        hsv = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)  # hue in degrees, the others in 0..1
        hsv[..., 0] = (hsv[..., 0] + 360 * turn) % 360
        hsv[..., 1:] = np.clip(hsv[..., 1:] * np.array([saturation, exposure], np.float32), 0, 1)
        return np.rint(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * 255).astype(np.uint8)


def _factor(most: float, rng: np.random.Generator) -> float:
    factor = rng.uniform(1, most)
    return float(factor if rng.integers(2) else 1 / factor)
