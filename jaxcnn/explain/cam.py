"""Class activation maps: CAM (Zhou et al. 2016), Grad-CAM (Selvaraju et al. 2017) and Seg-Grad-CAM.

A map is a pure function of (model, variables, normalised images); it has the size of the feature map that it is read
from, and `upsample` brings it to the image's. On a net whose head is global average pooling and one linear layer the
two are equal up to the factor H' W' and Grad-CAM's ReLU.
"""

from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.extend.core import ClosedJaxpr, Var, jaxpr_as_fun

from jaxcnn.errors import UserError, did_you_mean
from jaxcnn.models.heads import GAP
from jaxcnn.models.segmenter import Segmenter


def cam(model: nn.Module, variables: Any, images: jax.Array, classes: jax.Array) -> jax.Array:
    """Class activation maps (Zhou et al. 2016, equation 2): the final map, weighted as the last layer weighs it.

    Args:
      model: a Classifier with a GAP head.
      variables: of the model.
      images: normalised, [B, H, W, C].
      classes: indices [B].

    Returns:
      Maps [B, H', W'] float32, negative where the image speaks against the class. Their mean is the class's logit less
      its bias.

    Raises:
      UserError: the head is not global average pooling and one linear layer.
    """
    head = getattr(model, "head", None)
    if not isinstance(head, GAP):
        kind = type(model if head is None else head).__name__
        raise UserError(
            f"CAM needs a head of global average pooling and one linear layer (GAP), not {kind}; use gradcam"
        )
    ends = cast(dict[str, jax.Array], model.apply(variables, images, train=False, method="features"))
    final = ends["final"].astype(jnp.float32)
    weights = variables["params"]["head"]["fc"]["kernel"].astype(jnp.float32)[:, classes]
    return jnp.einsum("bhwc,cb->bhw", final, weights)


def gradcam(
    model: nn.Module, variables: Any, images: jax.Array, classes: jax.Array, endpoint: str = "final"
) -> jax.Array:
    """Grad-CAM (Selvaraju et al. 2017, equations 1 and 2) at any endpoint.

    Of a segmenter the gradient is that of the sum of the class's logits over the pixels that are predicted to be of the
    class (Seg-Grad-CAM, Vinogradova et al. 2020, equation 2), and over all pixels if none is.

    Args:
      model: a Classifier or a Segmenter.
      variables: of the model.
      images: normalised, [B, H, W, C].
      classes: indices [B].
      endpoint: of `features()`.

    Returns:
      Maps [B, H', W'] float32, at least 0. All zeros where nothing at this endpoint speaks for the class.

    Raises:
      UserError: there is no such endpoint, or it is the image itself.
    """
    maps, rest = cut(model, variables, images, endpoint)
    rows = jnp.arange(len(images))

    def score(maps: jax.Array) -> jax.Array:
        logits = rest(maps)
        if logits.ndim == 2:
            return logits[rows, classes].sum()
        own = logits[rows, :, :, classes]  # [B, H, W]
        predicted = logits.argmax(-1) == classes[:, None, None]
        return jnp.where(predicted | ~predicted.any((1, 2), keepdims=True), own, 0).sum()

    gradients = jax.grad(score)(maps).astype(jnp.float32)
    weights = gradients.mean((1, 2))
    return nn.relu(jnp.einsum("bhwc,bc->bhw", maps.astype(jnp.float32), weights))


def cut(model: nn.Module, variables: Any, images: jax.Array, endpoint: str) -> tuple[jax.Array, Any]:
    """The map [B, H', W', C] of an endpoint, and the net behind it: a function from such a map to logits [B, classes],
    of a segmenter [B, H, W, classes].

    The net is cut in its jaxpr, at the value that `features()` returns, so that a family need not be able to start in
    the middle. What reaches the logits beside the endpoint, as through a shortcut, is held as it is.
    """
    check_endpoint(model, images, endpoint)

    def forward(variables: Any, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        ends = cast(dict[str, jax.Array], model.apply(variables, images, train=False, method="features"))
        if isinstance(model, Segmenter):
            logits = model.apply(variables, ends, images.shape[1:3], train=False, method="segment")
        else:
            logits = model.apply(variables, ends["final"], train=False, method="classify")
        return ends[endpoint], cast(jax.Array, logits)

    arguments = jax.tree.leaves((variables, images))
    closed = jax.make_jaxpr(forward)(variables, images)
    jaxpr = closed.jaxpr
    end, logits = jaxpr.outvars
    if end in jaxpr.invars:
        raise UserError(
            f"the endpoint {endpoint!r} of this model is the image itself: there is no feature map to explain"
        )
    # The equation that makes the map now makes something that nobody reads, and the map is an argument.
    unread = Var(end.aval)
    equations = [
        equation.replace(outvars=[unread if variable is end else variable for variable in equation.outvars])
        for equation in jaxpr.eqns
    ]
    behind = jaxpr.replace(
        invars=[*jaxpr.invars, end], outvars=[logits], eqns=equations, debug_info=jaxpr.debug_info.with_unknown_names()
    )
    run = jaxpr_as_fun(ClosedJaxpr(behind, closed.consts))
    maps, _ = jaxpr_as_fun(closed)(*arguments)
    return maps, lambda maps: run(*arguments, maps)[0]


def check_endpoint(model: nn.Module, images: Any, endpoint: str) -> None:
    """Raises UserError where the model has no endpoint of this name; computes nothing."""
    if not callable(getattr(model, "features", None)):
        raise UserError(f"{type(model).__name__} has no feature maps: it has no method `features` (docs/design.md)")
    names = jax.eval_shape(
        lambda x: model.init_with_output(jax.random.key(0), x, train=False, method="features")[0], images
    )
    if endpoint not in names:
        hint = did_you_mean(endpoint, names) or f"; there is {', '.join(names)}"
        raise UserError(f"the model has no endpoint {endpoint!r}{hint}")


def upsample(maps: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Maps [B, H', W'] at the size (height, width) of the image, bilinear: [B, H, W]."""
    return jax.image.resize(maps, (len(maps), *size), "linear")
