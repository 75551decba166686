"""What a net's numbers look like as images: first-layer filters, the templates of a linear net, feature maps."""

from typing import Any, cast

import jax
import numpy as np
from flax import linen as nn

from jaxcnn.errors import UserError
from jaxcnn.explain.cam import check_endpoint
from jaxcnn.models.linear import Pixels
from jaxcnn.summary.summary import summarize


def first_filters(model: nn.Module, variables: Any, input_shape: tuple[int, int, int]) -> tuple[str, np.ndarray]:
    """The path of the first layer of trained weights and its filters as images, [K, h, w, C].

    A first layer that is fully connected, as in an MLP, has filters of the image's size.

    Raises:
      UserError: the first layer's weights are no images.
    """
    layer = next((layer for layer in summarize(model, input_shape).layers if layer.multiply_adds), None)
    kernel = _kernel(variables, layer.name) if layer is not None else None
    if layer is None or kernel is None:
        raise UserError(f"{type(model).__name__} has no first layer whose weights could be shown")
    if kernel.ndim == 2 and kernel.shape[0] == np.prod(input_shape):
        kernel = kernel.reshape(*input_shape, -1)
    if kernel.ndim != 4 or kernel.shape[2] not in (1, 3):
        raise UserError(f"the weights of {layer.name} have the shape {kernel.shape}, which is no set of images")
    return layer.name, np.moveaxis(kernel, -1, 0)


def templates(model: nn.Module, variables: Any, input_shape: tuple[int, int, int]) -> np.ndarray:
    """The weights of a linear net as one image per class, [classes, H, W, C]: the class's logit is their product with
    the image, and a bias (S2 of docs/courses.md).

    Raises:
      UserError: the model is not linear.
    """
    if not isinstance(getattr(model, "backbone", None), Pixels) or getattr(model.head, "widths", None) != ():
        raise UserError("only a linear net (jaxcnn models linear) has one template per class; use filters")
    return first_filters(model, variables, input_shape)[1]


def feature_maps(model: nn.Module, variables: Any, images: jax.Array, endpoint: str) -> jax.Array:
    """The maps of an endpoint, [B, H', W', C]; `images` are normalised, [B, H, W, C]. Raises UserError: no such one."""
    check_endpoint(model, images, endpoint)
    ends = cast(dict[str, jax.Array], model.apply(variables, images, train=False, method="features"))
    return ends[endpoint]


def _kernel(variables: Any, path: str) -> np.ndarray | None:
    node = variables["params"]
    for name in path.split("/"):
        node = node.get(name, {})
    return np.asarray(node["kernel"], np.float32) if "kernel" in node else None
