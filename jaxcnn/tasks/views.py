"""Views: an image is looked at several times in evaluation, and the probabilities are averaged.

Each class's probability is the mean of the softmax probabilities of the views; the loss is the cross-entropy of this
mean, -log(mean p), which is at most the mean of the views' losses. Views are cut from evaluation's images on the
device, after they are normalised. Training has none.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcnn.errors import UserError
from jaxcnn.tasks.task import Variables


@runtime_checkable
class Views(Protocol):
    """A frozen dataclass."""

    def log_probabilities(self, model: nn.Module, variables: Variables, images: jax.Array) -> jax.Array:
        """Normalised images [B, H, W, C] -> logarithms of probabilities [B, classes], float32."""
        ...


@dataclass(frozen=True)
class Flips:
    """The image and its mirror image."""

    def log_probabilities(self, model: nn.Module, variables: Variables, images: jax.Array) -> jax.Array:
        """Normalised images [B, H, W, C] -> logarithms of probabilities [B, classes], float32."""
        return averaged(each_log_probabilities(_logits(model, variables), [images, mirrored(images)]))

    def smaller(self, size: tuple[int, int]) -> "Flips":
        """The views for a net whose training images shrink to `size`, in --debug."""
        return self


@dataclass(frozen=True)
class TenCrop:
    """The four corners and the middle of the image, and their mirror images (Krizhevsky et al. 2012, section 4.1).

    With images of 256 x 256, `Data.evaluation_shape`, TenCrop(224) is the paper's. The middle lies as torchvision's:
    where the margin is odd, the offset rounds half to even.
    """

    size: int | tuple[int, int]
    """Of each crop, in pixels: a side, or (height, width)."""

    def __post_init__(self):
        pair = (self.size, self.size) if isinstance(self.size, int) else self.size
        if len(pair) != 2 or min(pair) < 1:
            raise UserError(f"TenCrop: size is {self.size}; it is a side or (height, width), at least 1")

    def crops(self, images: jax.Array) -> list[jax.Array]:
        """[B, H, W, C] -> ten [B, h, w, C], in torchvision's order: top left, top right, bottom left, bottom right,
        middle, and the same five of the mirror image. Raises UserError if the images are smaller than a crop."""
        height, width = (self.size, self.size) if isinstance(self.size, int) else self.size
        down, right = images.shape[1] - height, images.shape[2] - width
        if down < 0 or right < 0:
            raise UserError(
                f"TenCrop cuts {height}x{width} out of evaluation's images, which are {images.shape[1]}x"
                f"{images.shape[2]}; give larger ones by data.preprocess and data.evaluation_shape"
            )
        places = ((0, 0), (0, right), (down, 0), (down, right), (round(down / 2), round(right / 2)))
        return [
            each[:, top : top + height, left : left + width]
            for each in (images, mirrored(images))
            for top, left in places
        ]

    def doubt(self, shape: tuple[int, int, int]) -> str | None:
        """What to warn of before it looks at images [H, W, C] of this shape: that all crops are the whole of them."""
        height, width = (self.size, self.size) if isinstance(self.size, int) else self.size
        if shape[:2] != (height, width):
            return None
        return (
            f"TenCrop cuts {height}x{width} out of images of {height}x{width}: all its crops are the image and its "
            "mirror image, two views and not ten, as jc.Flips() has them for a fifth of the time"
        )

    def log_probabilities(self, model: nn.Module, variables: Variables, images: jax.Array) -> jax.Array:
        """Normalised images [B, H, W, C] -> logarithms of probabilities [B, classes], float32."""
        return averaged(each_log_probabilities(_logits(model, variables), self.crops(images)))

    def smaller(self, size: tuple[int, int]) -> "TenCrop":
        """The views for a net whose training images shrink to `size`, in --debug."""
        return TenCrop(size)


@dataclass(frozen=True)
class Dense:
    """The net over the whole image, its fully connected layers as convolutions (Simonyan & Zisserman 2015, section
    3.2): the map of class scores is averaged, the softmax taken, and that averaged over the sizes and mirror images.

    The window of the first fully connected layer is the head's grid; where a net ends in global average pooling this is
    the net itself on a larger image. Departures: all images of a batch have one shape, so that what is looked at is
    what `preprocess` makes, such as the middle square of the shorter side; sizes are made from that by bilinear
    antialiased resampling.

    Example: Dense((256, 384, 512)), with images of 512 x 512, has the three scales of Table 4 for nets that were
    trained with scale jittering.
    """

    sizes: tuple[int, ...] = ()
    """The shorter sides, Q in the paper, in pixels; (): the image as it is."""
    flips: bool = True
    """Look at the mirror images too."""

    def __post_init__(self):
        if any(size < 1 for size in self.sizes) or len(set(self.sizes)) < len(self.sizes):
            raise UserError(f"Dense: sizes are {self.sizes}; they are sides in pixels, each one once")

    def log_probabilities(self, model: nn.Module, variables: Variables, images: jax.Array) -> jax.Array:
        """Normalised images [B, H, W, C] -> logarithms of probabilities [B, classes], float32.

        Raises UserError if the net has no map of class scores, or a size is too small for it.
        """
        if not hasattr(model, "score_map"):
            raise UserError(
                f"Dense needs a net with a map of class scores, score_map(images), and {type(model).__name__} has none"
            )

        def logits(views: jax.Array) -> jax.Array:
            scores = cast(jax.Array, model.apply(variables, views, method="score_map"))
            return scores.mean((1, 2))

        found = []
        for size in self.sizes or (min(images.shape[1:3]),):
            sized = resized(images, size)
            found.append(each_log_probabilities(logits, [sized, mirrored(sized)] if self.flips else [sized]))
        return averaged(jnp.concatenate(found))

    def smaller(self, size: tuple[int, int]) -> Flips:
        """The views for a net whose training images shrink to `size`, in --debug: its window may not fit any more."""
        return Flips()


def mirrored(images: jax.Array) -> jax.Array:
    """[B, H, W, C] with left and right exchanged."""
    return images[:, :, ::-1]


def resized(images: jax.Array, size: int) -> jax.Array:
    """[B, H, W, C] with the shorter side at `size`, the longer one at int(size * longer / shorter)."""
    short, long = min(images.shape[1:3]), max(images.shape[1:3])
    if size == short:
        return images
    longer = int(size * long / short)
    rows, columns = (size, longer) if images.shape[1] <= images.shape[2] else (longer, size)
    return jax.image.resize(images, (len(images), rows, columns, images.shape[3]), "bilinear")


def each_log_probabilities(logits: Callable[[jax.Array], jax.Array], views: Sequence[jax.Array]) -> jax.Array:
    """V views [B, h, w, C] of one shape -> [V, B, classes], one after another: the program holds the net once."""
    return jax.lax.map(lambda view: jax.nn.log_softmax(logits(view).astype(jnp.float32)), jnp.stack(views))


def averaged(log_probabilities: jax.Array) -> jax.Array:
    """[V, B, classes] -> the logarithm of the mean of the V probabilities, [B, classes]."""
    return jax.nn.logsumexp(log_probabilities, axis=0) - math.log(len(log_probabilities))


def _logits(model: nn.Module, variables: Variables) -> Callable[[jax.Array], jax.Array]:
    return lambda images: cast(jax.Array, model.apply(variables, images, train=False))


def views_of(task: Any) -> Views | None:
    """How often the task looks at an image in evaluation, if more than once."""
    return getattr(task, "views", None)


def evaluated_with(task: Any, model: nn.Module) -> Callable[[Variables, jax.Array], Any]:
    """What is made of (variables, normalised images) in evaluation: by the task's views, or by the model alone."""
    views = views_of(task)
    if views is None:
        return functools.partial(model.apply, train=False)
    return functools.partial(views.log_probabilities, model)
