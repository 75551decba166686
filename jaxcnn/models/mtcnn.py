"""MTCNN (Zhang, Zhang, Li & Qiao 2016): three small nets in a row that find faces, each with a head for the class, one
for the box and, the last, one for five landmarks.

The nets are those of the PyPI package facenet-pytorch (MIT license, 1.9 MB), whose weights `mtcnn_variables` reads:
`pip install facenet-pytorch --no-deps` (its package pins an old PyTorch). They come by way of David Sandberg's facenet
from the authors' Caffe files, and differ from the paper's table (figure 2) in no layer but for PReLU in place of ReLU.

They are no models of `create_model`: each is a part of one search, reads windows of its own size, and answers with
numbers of a window and not with classes of an image. `find_faces` is that search. It is host code around jitted nets,
since how many windows go on from one net to the next depends on the image.
"""

import dataclasses
import functools
import importlib.util
import os
import pathlib
from collections.abc import Mapping
from typing import Any, cast

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import linen as nn

from jaxcnn.errors import UserError
from jaxcnn.models.layers import max_pool
from jaxcnn.ops.nms import nms

CELL, STRIDE = 12, 2
"""Pixels that P-Net looks at for one place, and from one place to the next."""
LANDMARKS = ("left eye", "right eye", "nose", "left corner of the mouth", "right corner of the mouth")
"""As one sees them in the image."""


@flax.struct.dataclass
class WindowOutputs:
    """What a net says of each window, float32; of P-Net windows are places of a map, [B, H', W'] in place of [B].

    Attributes:
      probability: [B], that it shows a face.
      boxes: [B, 4], how far the face's (xmin, ymin, xmax, ymax) lie from the window's, in parts of its sides.
      points: [B, 5, 2], (x, y) of the landmarks in parts of the window; [B, 0, 2] of P-Net and R-Net.
    """

    probability: jax.Array
    boxes: jax.Array
    points: jax.Array


class PReLU(nn.Module):
    """max(0, x) + slope * min(0, x), with a slope for each channel (He et al. 2015, equation 1)."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        slope = self.param("slope", nn.initializers.constant(0.25), (x.shape[-1],))
        return jnp.maximum(x, 0) + slope * jnp.minimum(x, 0)


class PNet(nn.Module):
    """The proposal net: 6,632 parameters, a window of 12x12; on a larger image one answer for every second place."""

    @nn.compact
    def __call__(self, images: jax.Array) -> WindowOutputs:
        """[B, H, W, 3] -> maps [B, H', W'], one place for 12x12 pixels."""
        x = _block(images, 10, 3, 1)
        x = max_pool(x, 2, stride=2, ceil_mode=True)
        x = _block(_block(x, 16, 3, 2), 32, 3, 3)
        return _answer(*(nn.Conv(width, (1, 1), name=f"conv4_{n}")(x) for n, width in enumerate((2, 4), 1)))


class RNet(nn.Module):
    """The net that refines: 100,178 parameters, windows of 24x24."""

    @nn.compact
    def __call__(self, images: jax.Array) -> WindowOutputs:
        """[B, 24, 24, 3] -> [B]."""
        x = max_pool(_block(images, 28, 3, 1), 3, stride=2, ceil_mode=True)
        x = max_pool(_block(x, 48, 3, 2), 3, stride=2, ceil_mode=True)
        x = _dense(_block(x, 64, 2, 3), 128, 4)
        return _answer(*(nn.Dense(width, name=f"dense5_{n}")(x) for n, width in enumerate((2, 4), 1)))


class ONet(nn.Module):
    """The output net: 389,040 parameters, windows of 48x48; it alone gives landmarks."""

    @nn.compact
    def __call__(self, images: jax.Array) -> WindowOutputs:
        """[B, 48, 48, 3] -> [B]."""
        x = max_pool(_block(images, 32, 3, 1), 3, stride=2, ceil_mode=True)
        x = max_pool(_block(x, 64, 3, 2), 3, stride=2, ceil_mode=True)
        x = max_pool(_block(x, 64, 3, 3), 2, stride=2, ceil_mode=True)
        x = _dense(_block(x, 128, 2, 4), 256, 5)
        return _answer(*(nn.Dense(width, name=f"dense6_{n}")(x) for n, width in enumerate((2, 4, 10), 1)))


NETS: dict[str, nn.Module] = {"pnet": PNet(), "rnet": RNet(), "onet": ONet()}


def normalize(images: np.ndarray) -> np.ndarray:
    """Levels of 0..255 as the nets read them: (x - 127.5) / 128, float32."""
    return (np.asarray(images, np.float32) - np.float32(127.5)) * np.float32(1 / 128)


@dataclasses.dataclass(frozen=True)
class Faces:
    """The faces of one image, the most certain first.

    `boxes` [N, 4], (xmin, ymin, xmax, ymax) in its pixels, not clipped to it; `scores` [N], probabilities; `points`
    [N, 5, 2], (x, y) of the LANDMARKS.
    """

    boxes: np.ndarray
    scores: np.ndarray
    points: np.ndarray


def find_faces(
    variables: Mapping[str, Any],
    image: np.ndarray,
    smallest: int = 20,
    thresholds: tuple[float, float, float] = (0.6, 0.7, 0.7),
    factor: float = 0.709,
) -> Faces:
    """The faces in a photo: P-Net on a pyramid of it, then R-Net and O-Net on the windows that are left.

        faces = find_faces(mtcnn_variables(), image)
        faces.boxes[0], faces.scores[0]

    Pixels are counted as the released code counts them: from 1, the last one inclusive, but for the boxes of the
    pyramid and for the overlap, which are taken without it. Departure: a window that lies outside of the image is
    dropped, where the released code goes on with one window less than boxes.

    Args:
      variables: {"pnet": {"params": ...}, "rnet": ..., "onet": ...}.
      image: RGB, uint8 [H, W, 3].
      smallest: side of the smallest face, in pixels.
      thresholds: probabilities from which each net lets a window pass.
      factor: from one level of the pyramid to the next.

    Raises:
      UserError: the image is another array, or a parameter cannot be.
    """
    if not (isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3):
        raise UserError(
            f"find_faces takes one RGB image, uint8 [H, W, 3], not {getattr(image, 'dtype', type(image))} "
            f"{list(np.shape(image))}"
        )
    if smallest < 1 or not 0 < factor < 1:
        raise UserError(f"smallest is {smallest} and factor {factor}; they are at least 1, and between 0 and 1")
    pixels = image.astype(np.float32)
    none = Faces(np.zeros((0, 4)), np.zeros(0), np.zeros((0, len(LANDMARKS), 2)))

    boxes = _squared(_proposed(variables["pnet"], pixels, smallest, thresholds[0], factor))
    boxes, said = _passing("rnet", variables, pixels, boxes, 24, thresholds[1])
    if not len(boxes):
        return none
    kept = _kept(boxes, said["probability"], 0.7)
    boxes = _squared(_moved(boxes[kept], said["boxes"][kept], inclusive=True))

    boxes, said = _passing("onet", variables, pixels, boxes, 48, thresholds[2])
    if not len(boxes):
        return none
    sides = boxes[:, 2:] - boxes[:, :2] + 1
    points = said["points"] * sides[:, None] + boxes[:, None, :2] - 1
    boxes = _moved(boxes, said["boxes"], inclusive=True)
    kept = _kept_by_smaller(boxes, said["probability"], 0.7)
    return Faces(boxes[kept], said["probability"][kept], points[kept])


def mtcnn_variables(folder: str | os.PathLike | None = None) -> dict[str, Any]:
    """The variables of the three nets, {"pnet": {"params": {"conv1": ...}}, "rnet": ..., "onet": ...}, float32.

    Args:
      folder: with pnet.pt, rnet.pt and onet.pt; None: that of the installed package facenet-pytorch.

    Raises:
      UserError: PyTorch, which reads the files, or the package is not installed, or a file is another one.
    """
    where = installed() if folder is None else pathlib.Path(folder)
    return {name: {"params": _converted(net, where / f"{name}.pt")} for name, net in NETS.items()}


def installed() -> pathlib.Path:
    """The folder of the installed package's weights. Raises UserError if it is not installed."""
    spec = importlib.util.find_spec("facenet_pytorch")
    if spec is None or spec.origin is None:
        raise UserError("the package facenet-pytorch is not installed: pip install facenet-pytorch --no-deps")
    return pathlib.Path(spec.origin).with_name("data")


def _block(x: jax.Array, width: int, kernel: int, number: int) -> jax.Array:
    """Only to be called in a compact method: a convolution without padding and its PReLU."""
    x = nn.Conv(width, (kernel, kernel), padding="VALID", name=f"conv{number}")(x)
    return PReLU(name=f"prelu{number}")(x)


def _dense(x: jax.Array, width: int, number: int) -> jax.Array:
    """The same of a fully connected layer. The map is flattened column by column, as Caffe's MATLAB interface, by which
    the nets were trained, sees an image."""
    x = nn.Dense(width, name=f"dense{number}")(rearrange(x, "b h w c -> b (w h c)"))
    return PReLU(name=f"prelu{number}")(x)


def _answer(logits: jax.Array, boxes: jax.Array, points: jax.Array | None = None) -> WindowOutputs:
    """`points` are first the five x, then the five y."""
    if points is None:
        points = jnp.zeros((*logits.shape[:-1], 0))
    return WindowOutputs(jax.nn.softmax(logits)[..., 1], boxes, rearrange(points, "... (xy n) -> ... n xy", xy=2))


@functools.partial(jax.jit, static_argnames="name")
def _apply(name: str, variables: Any, images: jax.Array) -> WindowOutputs:
    with jax.default_matmul_precision("float32"):
        return cast(WindowOutputs, NETS[name].apply(variables, images))


def _proposed(variables: Any, pixels: np.ndarray, smallest: int, threshold: float, factor: float) -> np.ndarray:
    """Boxes float64 [N, 4] of P-Net, corrected by it, from all levels of the pyramid."""
    height, width = pixels.shape[:2]
    scale = CELL / smallest
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    side = min(height, width) * scale
    while side >= CELL:
        level = area_resize(pixels, (int(height * scale + 1), int(width * scale + 1)))
        said = jax.tree.map(lambda x: np.asarray(x[0]), _apply("pnet", variables, normalize(level)[None]))
        rows, columns = np.nonzero(said.probability >= threshold)
        corner = STRIDE * np.stack([columns, rows], 1)
        boxes = np.concatenate([np.floor((corner + 1) / scale), np.floor((corner + CELL) / scale)], 1)
        scores = said.probability[rows, columns]
        kept = _kept(boxes, scores, 0.5)
        found.append((boxes[kept], scores[kept], said.boxes[rows, columns][kept]))
        scale, side = scale * factor, side * factor
    if not found:
        return np.zeros((0, 4))
    boxes, scores, shifts = (np.concatenate(each) for each in zip(*found, strict=True))
    kept = _kept(boxes, scores, 0.7)
    return _moved(boxes[kept], shifts[kept], inclusive=False)


def _passing(
    name: str, variables: Mapping[str, Any], pixels: np.ndarray, boxes: np.ndarray, side: int, threshold: float
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The windows that a net lets pass, and what it says of them."""
    height, width = pixels.shape[:2]
    whole = np.trunc(boxes).astype(int)
    left, top = np.maximum(whole[:, :2], 1).T - 1
    right, bottom = np.minimum(whole[:, 2:], (width, height)).T
    inside = (right > left) & (bottom > top)
    boxes, edges = boxes[inside], np.stack([top, bottom, left, right], 1)[inside].tolist()
    crops = [area_resize(pixels[t:b, low:r], (side, side)) for t, b, low, r in edges]
    if not crops:
        return boxes, {}
    room = _room(len(crops))
    windows = np.zeros((room, side, side, 3), np.float32)
    windows[: len(crops)] = normalize(np.stack(crops))
    said = _apply(name, variables[name], windows)
    parts = {field: np.asarray(getattr(said, field))[: len(crops)] for field in ("probability", "boxes", "points")}
    passes = parts["probability"] > threshold
    return boxes[passes], {field: part[passes] for field, part in parts.items()}


def area_resize(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Averages over the pixels that lie in each new one, wholly or in part, float32 [H, W, C] -> [*size, C]: PyTorch's
    interpolate(mode="area"), row i from floor(i H / n) to ceil((i + 1) H / n)."""
    rows, columns = (_averages(old, new) for old, new in zip(pixels.shape[:2], size, strict=True))
    return np.einsum("nh,hwc,mw->nmc", rows, pixels, columns, optimize=True).astype(np.float32)


@functools.lru_cache(maxsize=512)
def _averages(old: int, new: int) -> np.ndarray:
    first = np.arange(new) * old // new
    last = -(-(np.arange(new) + 1) * old // new)
    positions = np.arange(old)
    covered = (positions >= first[:, None]) & (positions < last[:, None])
    return covered / covered.sum(1, keepdims=True)


def _squared(boxes: np.ndarray) -> np.ndarray:
    """Squares about the same middle, as long as the longer side."""
    sides = boxes[:, 2:] - boxes[:, :2]
    longer = sides.max(1, keepdims=True, initial=0)
    corner = boxes[:, :2] + sides / 2 - longer / 2
    return np.concatenate([corner, corner + longer], 1)


def _moved(boxes: np.ndarray, shifts: np.ndarray, *, inclusive: bool) -> np.ndarray:
    """Boxes with each edge moved by so many sides, which count the last pixel if they are inclusive."""
    sides = boxes[:, 2:] - boxes[:, :2] + inclusive
    return boxes + shifts * np.concatenate([sides, sides], 1)


def _kept(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> np.ndarray:
    """What non-maximum suppression keeps, the best first. Arrays are filled up, so that few shapes are compiled."""
    room = _room(len(boxes))
    filled, given = np.zeros((room, 4), np.float32), np.zeros(room, np.float32)
    filled[: len(boxes)], given[: len(boxes)] = boxes, scores
    kept = np.asarray(nms(filled, given, threshold, room, valid=np.arange(room) < len(boxes)))
    return kept[kept >= 0]


def _kept_by_smaller(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> np.ndarray:
    """The same for a handful of boxes, by the share of the smaller one that overlaps, in inclusive pixels: a face found
    within a face is dropped."""
    kept: list[int] = []
    areas = (boxes[:, 2:] - boxes[:, :2] + 1).prod(1)
    for index in np.argsort(-scores, kind="stable").tolist():
        low, high = np.maximum(boxes[kept, :2], boxes[index, :2]), np.minimum(boxes[kept, 2:], boxes[index, 2:])
        shared = np.maximum(high - low + 1, 0).prod(1)
        if not (shared > threshold * np.minimum(areas[kept], areas[index])).any():
            kept.append(index)
    return np.array(kept, int)


def _room(count: int) -> int:
    return 1 << max(5, (count - 1).bit_length())


def _converted(net: nn.Module, file: pathlib.Path) -> dict[str, Any]:
    """The parameters of one net from its file."""
    try:
        import torch
    except ModuleNotFoundError as error:
        raise UserError("reading facenet-pytorch's weights needs PyTorch: pip install torch") from error
    try:
        stored = {
            name: value.numpy() for name, value in torch.load(file, map_location="cpu", weights_only=True).items()
        }
    except Exception as error:  # torch.load raises many types on damaged files
        raise UserError(f"{file} cannot be read as MTCNN's weights: {str(error).strip().splitlines()[0]}") from error
    side = {"pnet": 12, "rnet": 24, "onet": 48}[file.stem]
    shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, side, side, 3)))["params"]
    params: dict[str, Any] = {}
    for layer, leaves in shapes.items():
        params[layer] = {}
        for leaf, wanted in leaves.items():
            key = f"{layer}.{'bias' if leaf == 'bias' else 'weight'}"
            if key not in stored:
                raise UserError(f"{file} cannot be read as MTCNN's weights: it has no {key}")
            array = stored.pop(key)
            array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
            if array.shape != wanted.shape:
                raise UserError(f"{file}: {key} is {array.shape}, and the net needs {wanted.shape}")
            params[layer][leaf] = np.ascontiguousarray(array, np.float32)
    if stored:
        raise UserError(f"{file} cannot be read as MTCNN's weights: it has {', '.join(sorted(stored))} besides")
    return params
