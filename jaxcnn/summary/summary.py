"""What a model is made of, counted from shapes: layers, parameters, multiply-adds, receptive fields, memory.

    print(summarize(create_model("vgg16"), (224, 224, 3)).multiply_adds)
    print(endpoints("vgg16")["stage5"])

Nothing runs and nothing is allocated: the model is traced on shapes (jaxpr.py and positions.py state the conventions).
"""

import dataclasses
import math
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict

from jaxcnn.errors import UserError
from jaxcnn.models import create_model
from jaxcnn.models.box_head import BoxHead
from jaxcnn.models.catalogue import CATALOGUE
from jaxcnn.models.detector import GridDetector, GridOutputs
from jaxcnn.models.localizer import Localizer
from jaxcnn.models.rcnn import RegionDetector
from jaxcnn.models.rpn import AnchorOutputs
from jaxcnn.models.segmenter import Segmenter
from jaxcnn.ops.convolution import plain_convolutions
from jaxcnn.summary.jaxpr import Layer, Walk
from jaxcnn.summary.positions import CONSTANT, Side, Value


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """One entry of `features()`; pairs are (height, width)."""

    shape: tuple[int, int, int]
    """(H, W, C) of one image."""
    stride: tuple[float, float]
    """Distance in the image between neighbouring positions."""
    receptive_field: tuple[float, float]
    """Pixels that a position sees, were the image large enough; inf where it is the whole image at any size."""
    first: tuple[float, float]
    """Where in the image the middle of the first position's field lies; 0 is the middle of the first pixel."""


@dataclasses.dataclass(frozen=True)
class Summary:
    """Of a model at one input size, in evaluation, for one image."""

    input_shape: tuple[int, int, int]
    layers: tuple[Layer, ...]
    endpoints: dict[str, Endpoint]
    parameters: int
    """Trainable ones, norms included, auxiliary heads not: the sum over the layers."""
    auxiliary_parameters: int
    """Of the heads that are used in training only."""
    statistics: int
    """Running means and variances, which are no parameters."""
    multiply_adds: int
    """Of trained weights in convolutions and matrix products, without biases: the sum over the layers."""
    flops: int
    """2 * multiply_adds, and one for every other operation on a number that depends on the image: biases, norms,
    activations, poolings, sums."""
    activation_bytes: int
    """Outputs of all layers together: what training keeps for the backward pass, if activations are recomputed."""


def summarize(model: nn.Module, input_shape: tuple[int, int, int], classes: int | None = None) -> Summary:
    """Counts a model from its shapes.

    Args:
      model: a Classifier, a Segmenter, or any module with their `init` and `apply`.
      input_shape: (H, W, C) of the images.
      classes: number of logits, if not the model's; a model with a head is needed for it.

    Raises:
      UserError: the images are too small for the model.
    """
    if classes is not None:
        model = model.clone(head=model.head.clone(classes=classes))
    images = jax.ShapeDtypeStruct((1, *input_shape), np.float32)
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), images)
    leaves: dict[str, Any] = flatten_dict(variables, sep="/")
    parameters = {
        path.removeprefix("params/"): leaf.shape for path, leaf in leaves.items() if path.startswith("params/")
    }
    statistics = {path: leaf.shape for path, leaf in leaves.items() if not path.startswith("params/")}

    names: list[str] = []  # in the order of features(), which a jaxpr forgets

    def forward(variables: Any, images: jax.Array) -> Any:
        if not hasattr(model, "features"):
            return {}, model.apply(variables, images, train=False)
        ends = cast(dict[str, jax.Array], model.apply(variables, images, train=False, method="features"))
        names.extend(ends)
        if isinstance(model, Segmenter):
            return ends, model.apply(variables, ends, images.shape[1:3], train=False, method="segment")
        if isinstance(model, GridDetector):
            return ends, cast(GridOutputs, model.apply(variables, ends["final"], train=False, method="grid")).boxes
        if isinstance(model, RegionDetector):
            anchors, pooled = _regions(model, variables, ends, images)
            return ends, (anchors, model.apply(variables, pooled, train=False, method="score_regions"))
        method = "localize" if isinstance(model, Localizer) else "classify"
        return ends, model.apply(variables, ends["final"], train=False, method=method)

    with plain_convolutions():
        jaxpr, (ends, _) = jax.make_jaxpr(forward, return_shape=True)(variables, images)
    paths = ["/".join(key.key for key in path) for path, _ in jax.tree_util.tree_flatten_with_path(variables)[0]]
    inputs = [
        Value(None, frozenset([path.removeprefix("params/")])) if path.startswith("params/") else CONSTANT
        for path in paths
    ]
    height, width, channels = input_shape
    image = Value((Side(1, 1, 1, height), Side(1, 1, 2, width)))
    norms = frozenset(path.split("/", 1)[1].rsplit("/", 1)[0] for path in statistics)
    walk = Walk(parameters, norms)
    outputs = walk.run(jaxpr.jaxpr, [*inputs, image])
    layers = tuple(walk.finish())
    multiply_adds = sum(layer.multiply_adds for layer in layers)
    return Summary(
        input_shape=(height, width, channels),
        layers=layers,
        # A jaxpr's outputs are the tree's leaves, and a dict's are in the order of their keys.
        endpoints={name: _endpoint(ends[name].shape, outputs[sorted(names).index(name)]) for name in names},
        parameters=sum(layer.parameters for layer in layers),
        auxiliary_parameters=_auxiliary_parameters(model, images),
        statistics=sum(map(math.prod, statistics.values())),
        multiply_adds=multiply_adds,
        flops=2 * multiply_adds + walk.other_flops,
        activation_bytes=sum(layer.bytes for layer in layers),
    )


def endpoints(
    model: str | nn.Module, image_size: int | tuple[int, ...] | None = None, **fields: Any
) -> dict[str, Endpoint]:
    """Every map that `features()` of a model returns, by name, with its shape, stride and receptive field.

        endpoints("vgg16", 64)["stage5"]
        endpoints(create_model("vgg16"), (64, 64, 3))["stage5"]

    Args:
      model: one of list_models(), or a model as for `summarize`.
      image_size: of a named model the side of a square image or (height, width), default the paper's; of any model
        (H, W, C).
      **fields: of a named model, as in create_model.

    Raises:
      UserError: no such model or field, no size for a model that is not named, or the images are too small for it.
    """
    shape, side = None, image_size
    if isinstance(image_size, tuple) and len(image_size) == 3:
        shape, side = image_size, None
    if isinstance(model, str):
        return summarize(create_model(model, **fields), shape or input_shape(model, side)).endpoints
    if fields:
        raise UserError(f"{type(model).__name__} is made already; give {', '.join(fields)} where it is made")
    if shape is None:
        raise UserError(f"{type(model).__name__} needs the shape of its images, (H, W, C), not {image_size}")
    return summarize(model, shape).endpoints


def input_shape(name: str, image_size: int | tuple[int, ...] | None = None) -> tuple[int, int, int]:
    """(H, W, C) of a model's images: the paper's, or of another size."""
    height, width, channels = CATALOGUE[name].input_shape
    if image_size is not None:
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    return height, width, channels


def _endpoint(shape: tuple[int, ...], value: Value) -> Endpoint:
    _, height, width, channels = shape
    rows, columns = value.sides
    return Endpoint(
        shape=(height, width, channels),
        stride=(rows.jump, columns.jump),
        receptive_field=(rows.field, columns.field),
        first=(rows.first, columns.first),
    )


def _regions(
    model: RegionDetector, variables: Any, ends: dict[str, jax.Array], images: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """What the RPN says, and an array of the shape of the features of as many regions as it proposes in detection.

    Which regions they are depends on the image, and what is counted on their number alone.
    """
    size = (images.shape[1], images.shape[2])
    maps = model.apply(variables, images, ends, train=False, method="rpn_features")
    anchors = cast(AnchorOutputs | None, model.apply(variables, maps, size, method="score_anchors"))
    proposals = jax.eval_shape(lambda: model.propose(anchors, 1, size, train=False)).boxes
    head = cast(BoxHead, model.head)
    first = ends[head.maps[0][0]][:, :1, :1]
    said = jnp.zeros(()) if anchors is None else anchors.offsets
    return said, jnp.broadcast_to(first[:, None], (1, proposals.shape[1], head.bins, head.bins, first.shape[-1]))


def _auxiliary_parameters(model: nn.Module, images: Any) -> int:
    if not getattr(model, "aux", None):
        return 0
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(0)}
    shapes = jax.eval_shape(lambda x: model.init(keys, x, train=False, method="outputs"), images)
    parts = [part for name, part in shapes["params"].items() if name.startswith("aux_")]
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(parts))
