"""Layer-wise decay of rates: the nearer a layer is to the image, the slower a fine-tuned net changes it.

Clark et al. 2020 (ELECTRA, appendix B) and Bao et al. 2022 (BEiT) have it for transformers, Howard & Ruder 2018 as
discriminative fine-tuning; timm calls it layer_decay.
"""

from collections.abc import Mapping
from typing import Any

import jax
import optax
from flax.traverse_util import flatten_dict

from jaxcnn.errors import UserError

BACKBONE = "backbone"


def layers_of(params: Mapping[str, Any]) -> list[list[str]]:
    """The parts of a net in the order in which images pass them, as folders of paths; the last of them is the head.

    A layer is a child of the backbone that has kernels, a convolution or a block, with the batch norms that follow it.
    The head is what stands outside of the backbone, a detector's or segmenter's too. A net without a backbone has its
    own children for layers, and the last of them is the head.

    Args:
      params: shapes, in the order in which the model makes them, which is that of its calls and not of the alphabet.

    Example: ResNet-18 has the layers ["params/backbone/conv1", "params/backbone/bn1"], ["params/backbone/layer1_0"],
    ..., ["params/backbone/layer4_1"], ["params/head"].

    Raises:
      UserError: there is one layer only, so that none comes before it.
    """
    body = params.get(BACKBONE, params)
    prefix = "params" if body is params else f"params/{BACKBONE}"
    layers: list[list[str]] = []
    begun = False
    for name, part in body.items():
        # What comes before the first kernel belongs to the first layer.
        weighted = any(len(leaf.shape) > 1 for leaf in jax.tree.leaves(part))
        if not layers or (weighted and begun):
            layers.append([])
        begun = begun or weighted
        layers[-1].append(f"{prefix}/{name}")
    outside = [f"params/{name}" for name in params if name != BACKBONE]
    if body is not params and outside:
        layers.append(outside)
    if len(layers) < 2:
        raise UserError("layer_decay: the net has one layer only, which has the full rate; leave layer_decay out")
    return layers


def layer_rates(params: Mapping[str, Any], decay: float | None) -> dict[str, float]:
    """{path: what multiplies the learning rate there}: 1 in the head, `decay` in the layer before it, its square in the
    one before that; {} without a decay. `params` as in `layers_of`."""
    if decay is None:
        return {}
    layers = layers_of(params)
    factors = {folder: decay ** (len(layers) - 1 - depth) for depth, own in enumerate(layers) for folder in own}
    paths = (f"params/{path}" for path in flatten_dict(dict(params), sep="/"))
    return {path: next(factors[folder] for folder in factors if _inside(path, folder)) for path in paths}


def layer_lines(params: Mapping[str, Any], decay: float | None) -> list[str]:
    """Each layer with its factor, for a person; nothing without a decay."""
    if decay is None:
        return []
    layers = layers_of(params)
    return [
        f"layer {depth} of {len(layers)}: learning rate times {decay ** (len(layers) - depth):.4g}, {', '.join(own)}"
        for depth, own in enumerate(layers, 1)
    ]


def scale_by_layer(rates: Mapping[str, float]) -> optax.GradientTransformation:
    """Multiplies each update by its parameter's factor. Behind an optimizer that is the same as its learning rate times
    the factor: a constant passes through every momentum."""

    def scale(path: tuple[Any, ...], update: Any) -> Any:
        return update * rates["/".join(["params", *(str(getattr(part, "key", part)) for part in path)])]

    return optax.stateless(lambda updates, params: jax.tree_util.tree_map_with_path(scale, updates))


def _inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")
