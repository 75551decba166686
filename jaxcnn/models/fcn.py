"""Fully convolutional networks (Long, Shelhamer & Darrell 2015; Shelhamer et al. 2017): FCN-32s, 16s and 8s.

The nets are those that the authors released (voc-fcn32s, 16s, 8s): VGG-16 with 100 zeros around the image in conv1_1,
poolings that round sizes up as Caffe's, fc6 and fc7 as convolutions 7x7 and 1x1 with dropout 0.5, a 1x1 convolution
that scores the classes, zero at the start, and bilinear upsampling to the image's size. The skips of 16s and 8s score
pool4 and pool3 and are added where the upsampled scores have the same stride.

The crops of the released nets (19; 5 and 27; 5, 9 and 31) are not written down here. They follow from where the
positions of each map lie in the image (`SkipHead.maps`), so that any backbone can be given whose positions are known;
`jaxcnn.endpoints(model)` counts them.

Initialisation: VGG's convolutions as VGG, to be replaced by trained ones (`from_vgg16`); scores 0; upsampling bilinear.
Paths agree: 16s starts from 32s, and 8s from 16s, with `--init-from.exclude` of the new score; all of them from a run
of vgg16 with `--init-from.exclude 'params/head/score_*' 'params/head/fc8/*'`, since a fully connected layer fits the
convolution that it is (train/init_from.py).

Departures: kernels of learned upsampling have no bias and are not flipped, as Flax's. With other backbones than FCN's
VGG there are no zeros around the image, and a map is continued by its outermost values (`border`).
"""

from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxcnn.errors import UserError, did_you_mean
from jaxcnn.models.layers import (
    Activation,
    Dtype,
    Init,
    activate,
    avg_pool,
    check_window,
    conv,
    is_same_layer,
    max_pool,
)
from jaxcnn.models.vgg import VGG
from jaxcnn.ops.upsampling import (
    Border,
    Grid,
    bilinear_kernel,
    covered,
    kernel_size,
    part,
    pixels,
    transposed_conv,
    upsample,
)

Upsampling = Literal["fixed", "learned", "per_class"]


class FCNVGG(VGG):
    """VGG's convolutions with zeros around the image and poolings that round up; fields as those of VGG.

    Attributes:
      padding: zeros that conv1_1 has on every side of the image. 100, the paper's code, lets fc6 fit any image; with
        another one the head's maps lie elsewhere: `vgg_maps(padding)`.
      shrink: the image is first averaged over squares of this side, for nets that must be cheap; the answer has the
        image's size all the same if the head's maps are `vgg_maps(padding, shrink=shrink)`.
    """

    padding: int = 100
    shrink: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """[B, 500, 500, 3] -> stage1 [B, 698, 698, 64], ..., pool3 [B, 88, 88, 256], pool4 [B, 44, 44, 512], final.

        stage3 and pool3 are before and behind the pooling; final [B, 22, 22, 512] is pool5.
        """
        if self.stages != 5 or self.pooling != "max" or self.padding < 1 or not self.stacked:
            raise UserError(
                f"FCNVGG has five stages, max pooling, stacked convolutions and a padding of at least 1, not "
                f"stages={self.stages}, pooling={self.pooling!r}, stacked={self.stacked}, padding={self.padding}"
            )
        ends: dict[str, jax.Array] = {}
        if self.shrink > 1:
            x = avg_pool(x, self.shrink, stride=self.shrink)
        more = self.padding - 1  # the convolution itself adds one
        x = jnp.pad(x, [(0, 0), (more, more), (more, more), (0, 0)])
        for number in range(1, 6):
            x = ends[f"stage{number}"] = self.stage(x, number, train=train)
            x = max_pool(x, 2, stride=2, ceil_mode=True)
            if number in (3, 4):
                ends[f"pool{number}"] = x
        return ends | {"final": x}


class SkipHead(nn.Module):
    """Scores maps of several strides, adds them from coarse to fine, and upsamples the sum to the image's size.

        SkipHead(classes=21, maps=(("final", 32, 0), ("stage4", 16, 0), ("stage3", 8, 0)))  # FCN-8s on a ResNet

    Attributes:
      classes: number of logits of a pixel.
      maps: from coarse to fine: name of the endpoint, distance of its positions in pixels, and where in the image the
        first one lies (0: the middle of the first pixel), as `jaxcnn.endpoints` counts them.
      widths: of hidden convolutions before the coarsest score, fc6, fc7, ...; the first has a window, others are 1x1.
      window: side of fc6's window, which is not padded.
      dropout: probability, after each hidden convolution.
      upsampling: "fixed" bilinear kernels, which are no parameters; "learned" ones that mix the classes and start
        bilinear; "per_class" one learned kernel for each class.
      border: what upsampling finds around a map: "zeros", as a transposed convolution, or the outermost values.
      skip_scales: what each finer map is multiplied by before its score; none: 1. FCN-8s trained at once has (0.01,
        0.0001).
      kernel_init: of the hidden convolutions; scores start at 0.
    """

    classes: int
    maps: tuple[tuple[str, float, float], ...] = (("final", 32, 0),)
    widths: tuple[int, ...] = ()
    window: int = 7
    dropout: float = 0.0
    upsampling: Upsampling = "fixed"
    border: Border = "repeat"
    skip_scales: tuple[float, ...] = ()
    activation: Activation = "relu"
    kernel_init: Init = "glorot_uniform"
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(self, ends: Mapping[str, jax.Array], size: tuple[int, int], *, train: bool) -> jax.Array:
        """Maps by name, of images of (height, width) -> [B, H, W, classes] float32.

        Raises:
          UserError: an endpoint is missing, there are not as many scales as skips, or the scores of a head without
            border do not reach the end of the image.
        """
        (name, stride, first), *skips = self.maps
        scales = self.skip_scales or (1.0,) * len(skips)
        if len(scales) != len(skips):
            raise UserError(f"skip_scales are {len(scales)}, but {len(skips)} maps are skips")
        x = self._map(ends, name)
        x, first = self._hidden(x, stride, first, train)
        x, grids = self._score(x, name), self._grids(x, stride, first, size)
        for (skip, stride, first), scale in zip(skips, scales, strict=True):
            finer = self._map(ends, skip)
            target = self._grids(finer, stride, first, size)
            if self.border == "zeros":  # the part that the transposed convolution makes
                rows, columns = (covered(old, new) for old, new in zip(grids, target, strict=True))
                finer = finer[:, rows, columns]
                target = (part(target[0], rows), part(target[1], columns))
            x = self._upsample(x, grids, target, f"upscore_{name}")
            x = x + self._score(finer if scale == 1 else finer * jnp.asarray(scale, finer.dtype), skip)
            name, grids = skip, target
        target = (pixels(size[0]), pixels(size[1]))
        if self.border == "zeros":
            for old, new in zip(grids, target, strict=True):
                if covered(old, new) != slice(0, new.size):
                    raise UserError(
                        f"the scores lie at {old.first:g} + {old.stride:g} i pixels, {old.size} of them, and do not "
                        f"reach all {new.size} pixels of the image; set border='repeat' or pad the image"
                    )
        return self._upsample(x, grids, target, f"upscore{round(grids[0].stride)}").astype(jnp.float32)

    def _map(self, ends: Mapping[str, jax.Array], name: str) -> jax.Array:
        if name not in ends:
            raise UserError(f"maps: no endpoint {name!r}{did_you_mean(name, ends) or '; there is ' + ', '.join(ends)}")
        return ends[name]

    def _grids(self, x: jax.Array, stride: float, first: float, size: tuple[int, int]) -> tuple[Grid, Grid]:
        """Where the map's rows and columns lie. Raises UserError if they lie about another middle than the image's."""
        rows, columns = (Grid(first, stride, positions) for positions in x.shape[1:3])
        for grid, side in ((rows, size[0]), (columns, size[1])):
            middle = grid.first + grid.stride * (grid.size - 1) / 2
            if abs(middle - (side - 1) / 2) > stride:
                raise UserError(
                    f"maps: {grid.size} positions at {first:g} + {stride:g} i do not lie in an image of {side} "
                    "pixels; jaxcnn.endpoints counts stride and first of the backbone's maps"
                )
        return rows, columns

    def _hidden(self, x: jax.Array, stride: float, first: float, train: bool) -> tuple[jax.Array, float]:
        """Behind fc6, fc7, ..., and where the first position lies then."""
        for number, width in enumerate(self.widths):
            side = 1 if number else self.window
            check_window(x, side, f"fc{6 + number}")
            x = conv(width, side, kernel_init=self.kernel_init, name=f"fc{6 + number}", dtype=self.dtype)(x)
            x = nn.Dropout(self.dropout, deterministic=not train)(activate(x, self.activation))
            first += (side - 1) / 2 * stride
        return x, first

    def _score(self, x: jax.Array, name: str) -> jax.Array:
        return conv(self.classes, 1, kernel_init=nn.initializers.zeros, name=f"score_{name}", dtype=self.dtype)(x)

    def _upsample(self, x: jax.Array, source: tuple[Grid, Grid], target: tuple[Grid, Grid], name: str) -> jax.Array:
        if self.upsampling == "fixed":
            return upsample(x, source, target, self.border)
        return Upscore(self.upsampling == "learned", self.border, name=name)(x, source, target)


class Upscore(nn.Module):
    """A transposed convolution to the positions of a target, bilinear at the start.

    Attributes:
      mixes: each output channel reads every input channel, at the start its own alone.
    """

    mixes: bool
    border: Border

    @nn.compact
    def __call__(self, x: jax.Array, source: tuple[Grid, Grid], target: tuple[Grid, Grid]) -> jax.Array:
        """[B, h, w, C] -> [B, H, W, C] float32 at least, on the target's grids (rows, columns)."""
        channels, side = x.shape[-1], kernel_size(source[0], target[0])
        channel = np.eye(channels) if self.mixes else np.ones((1, channels))

        def bilinear(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
            return jnp.asarray(bilinear_kernel(side)[..., None, None] * channel, jnp.float32).reshape(shape)

        kernel = self.param("kernel", bilinear, (side, side, *channel.shape))
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        return transposed_conv(x, kernel, source, target, self.border)


def vgg_maps(padding: int = 100, finest: int = 8, shrink: int = 1) -> tuple[tuple[str, float, float], ...]:
    """`SkipHead.maps` of an FCNVGG, down to the stride `finest`: 32, 16 or 8, in pixels of the image that it shrinks.

    Pooling puts the first position in the middle of its window, `stride` wide, which begins in the zeros.
    """
    names = {32: "final", 16: "pool4", 8: "pool3"}
    firsts = {stride: (stride - 1) / 2 + 1 - padding for stride in names}
    middle = (shrink - 1) / 2  # of the first square of pixels
    return tuple(
        (name, stride * shrink, firsts[stride] * shrink + middle) for stride, name in names.items() if stride >= finest
    )


def resnet_maps(finest: int = 8) -> tuple[tuple[str, float, float], ...]:
    """`SkipHead.maps` of a ResNet, whose padding puts every map's first position on the first pixel."""
    names = {32: "final", 16: "stage4", 8: "stage3"}
    return tuple((name, stride, 0.0) for stride, name in names.items() if stride >= finest)


FCN_VGG_HEAD = SkipHead(classes=21, maps=vgg_maps(), widths=(4096, 4096), dropout=0.5, border="zeros")


def from_vgg16(variables: Mapping[str, Any], vgg16: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The variables of an FCN on VGG with the weights of VGG as a classifier.

        weights = from_torch("vgg16", "vgg16.pth")
        variables, fresh = from_vgg16(model.init(key, images, train=False), weights)

    Args:
      variables: of an FCN, as `init` made them.
      vgg16: of the classifier of the same depth and widths. The convolutions must be there; fc6 and fc7 may be missing
        (the weights are those of a trunk) and become the convolutions that they are; fc8 is left.

    Returns:
      New variables, and the paths of those that are as they were.

    Raises:
      UserError: an array of the backbone is missing, has no place in the FCN, or does not fit; the message lists them.
    """
    ours: dict[str, Any] = flatten_dict(dict(variables), sep="/")
    theirs: dict[str, Any] = flatten_dict(dict(vgg16), sep="/")
    taken = {path for path in theirs if not path.startswith("params/head/") or path in ours}
    missing = sorted(path for path in ours if "/backbone/" in path and path not in taken)
    problems = [f"  {path}: not in VGG's weights" for path in missing]
    problems += [f"  {path}: not in the FCN" for path in sorted(taken - ours.keys())]
    problems += [
        f"  {path}: {tuple(theirs[path].shape)} in VGG, {tuple(ours[path].shape)} in the FCN"
        for path in sorted(taken & ours.keys())
        if not is_same_layer(theirs[path].shape, ours[path].shape)
    ]
    if problems:
        raise UserError("these are not the weights of this FCN's VGG:\n" + "\n".join(problems[:10]))
    new = {path: jnp.reshape(theirs[path], ours[path].shape) for path in taken}
    return unflatten_dict(ours | new, sep="/"), sorted(ours.keys() - taken)
