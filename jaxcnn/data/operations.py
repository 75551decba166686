"""Operations: what the augmentation policies do to an image, by name and with a magnitude in the operation's own unit.

Cubuk et al. 2019, table 6. Pillow does them, as in the papers' code; signs and centers are torchvision's.
"""

import math
from collections.abc import Callable
from typing import Literal

import numpy as np

from jaxcnn.errors import UserError

Sampling = Literal["nearest", "bilinear", "bicubic"]
Fill = int | tuple[int, ...]

SIGNED = frozenset(
    ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast", "Sharpness")
)
"""Those whose magnitude is negative in one case of two."""
MOVING = frozenset(("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"))
"""Those that move pixels."""


def operate(image: np.ndarray, name: str, magnitude: float, method: Sampling = "nearest", fill: Fill = 0) -> np.ndarray:
    """The image after one operation.

    Args:
      image: uint8 [H, W, C], C 1 or 3.
      name: Identity, AutoContrast, Equalize, Invert, without a magnitude; ShearX and ShearY, the tangent; TranslateX
        and TranslateY, pixels to the right and down; Rotate, degrees counter-clockwise; Brightness, Color, Contrast and
        Sharpness, what is added to the factor 1; Posterize, bits that are kept; Solarize, the level from which on
        levels are inverted.
      magnitude: in that unit.
      method: of the operations that move pixels.
      fill: the level of what comes in, one or one per channel.

    Returns:
      uint8 of the same shape.

    Raises:
      UserError: there is no such operation.

    Example: operate(image, "Rotate", 15.0)
    """
    if image.shape[-1] not in (1, 3):
        raise UserError(f"{name}: the image has {image.shape[-1]} channels; policies take 1 or 3")
    if name == "Identity":
        return image
    if name not in OPERATIONS:
        raise UserError(f"no operation {name!r}; there is Identity, {', '.join(OPERATIONS)}")
    from PIL import Image

    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    done = np.asarray(OPERATIONS[name](picture, magnitude, method, _level(fill, image.shape[-1])))
    return done[..., None] if image.shape[-1] == 1 else done


def _level(fill: Fill, channels: int) -> Fill:
    values = (fill,) if isinstance(fill, int) else tuple(fill)
    if len(values) not in (1, channels):
        raise UserError(f"fill has {len(values)} levels, but the image has {channels} channels; give 1 or {channels}")
    values = values * channels if len(values) == 1 else values
    return values[0] if channels == 1 else values


def _sampling(method: Sampling):
    from PIL import Image

    return {
        "nearest": Image.Resampling.NEAREST,
        "bilinear": Image.Resampling.BILINEAR,
        "bicubic": Image.Resampling.BICUBIC,
    }[method]


def _affine(*matrix: float) -> Callable:
    """The picture whose pixel at (x, y) comes from (a x + b y + c, d x + e y + f)."""
    from PIL import Image

    return lambda picture, method, fill: picture.transform(
        picture.size, Image.Transform.AFFINE, matrix, _sampling(method), fillcolor=fill
    )


def _enhanced(kind: str) -> Callable:
    def enhance(picture, magnitude, method, fill):
        from PIL import ImageEnhance

        return getattr(ImageEnhance, kind)(picture).enhance(1 + magnitude)

    return enhance


def _of_levels(name: str, argument: Callable[[float], tuple] = lambda magnitude: ()) -> Callable:
    def change(picture, magnitude, method, fill):
        from PIL import ImageOps

        return getattr(ImageOps, name)(picture, *argument(magnitude))

    return change


OPERATIONS: dict[str, Callable] = {
    "ShearX": lambda picture, m, method, fill: _affine(1, m, 0, 0, 1, 0)(picture, method, fill),
    "ShearY": lambda picture, m, method, fill: _affine(1, 0, 0, m, 1, 0)(picture, method, fill),
    "TranslateX": lambda picture, m, method, fill: _affine(1, 0, -math.trunc(m), 0, 1, 0)(picture, method, fill),
    "TranslateY": lambda picture, m, method, fill: _affine(1, 0, 0, 0, 1, -math.trunc(m))(picture, method, fill),
    "Rotate": lambda picture, m, method, fill: picture.rotate(m, _sampling(method), fillcolor=fill),
    "Brightness": _enhanced("Brightness"),
    "Color": _enhanced("Color"),
    "Contrast": _enhanced("Contrast"),
    "Sharpness": _enhanced("Sharpness"),
    "Posterize": _of_levels("posterize", lambda magnitude: (int(magnitude),)),
    "Solarize": _of_levels("solarize", lambda magnitude: (magnitude,)),
    "AutoContrast": _of_levels("autocontrast"),
    "Equalize": _of_levels("equalize"),
    "Invert": _of_levels("invert"),
}
