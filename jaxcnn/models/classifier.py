"""Classifier: a backbone that makes feature maps and a head that makes logits of the last one."""

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core import FrozenDict
from flax.errors import ScopeParamShapeError

from jaxcnn.errors import UserError, did_you_mean
from jaxcnn.models.layers import check_choices

_CHANNELS_LAST = "the channels come last: images.transpose(0, 2, 3, 1)"
_TRAINING = (
    'logits, updated = model.apply(variables, images, train=True, mutable=["batch_stats"], rngs={"dropout": key}); '
    "variables = {**variables, **updated}"
)


@flax.struct.dataclass
class Outputs:
    """Logits float32, and those of the auxiliary heads by the name of the endpoint that they read.

    [B, classes] of a Classifier, [B, H, W, classes] of a Segmenter.
    """

    logits: jax.Array
    aux: dict[str, jax.Array]


class Classifier(nn.Module):
    """A pure function of (variables, images): uint8 never enters here, and nothing is normalised here.

    Raises UserError for a field of its parts that is none of the choices that the field's type lists.

    Attributes:
      backbone: images [B, H, W, C] -> {"stage1": ..., "final": ...}, maps [B, H', W', C'].
      head: the final map -> logits [B, classes].
      aux: heads that read other endpoints, used in training only; name of the endpoint -> head.
    """

    backbone: nn.Module
    head: nn.Module
    aux: Mapping[str, nn.Module] = FrozenDict()

    def __post_init__(self):
        # Frozen, because modules are hashed.
        object.__setattr__(self, "aux", FrozenDict(self.aux))
        super().__post_init__()
        for part in (self.backbone, self.head, *self.aux.values()):
            check_choices(part)

    @property
    def classes(self) -> int:
        return self.head.classes

    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Images [B, H, W, C] -> logits [B, classes] float32."""
        return self.classify(self.features(images, train=train)["final"], train=train)

    def features(self, images: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Every stage's map before its pooling, by name, and the map that the head reads as "final".

        Raises:
          UserError: the images are not [B, H, W, C] of floats, have other channels than those of `init`, or batch norm
            is in training and `mutable` does not name its statistics.
        """
        return extract_features(self, images, train=train)

    def classify(self, final: jax.Array, *, train: bool) -> jax.Array:
        """The final map -> logits [B, classes] float32."""
        return self.head(final, train=train)

    def score_map(self, images: jax.Array) -> jax.Array:
        """Class scores at every place of the final map that the head fits, [B, H, W, C] -> [B, h, w, classes] float32:
        the net without dropout, and the head's layers as convolutions.

        Raises:
          UserError: the head cannot do that, or the images are too small for its window.
        """
        if not hasattr(self.head, "score_map"):
            raise UserError(
                f"a map of class scores needs a head such as FC or GAP, and {type(self.head).__name__} has no score_map"
            )
        return self.head.score_map(self.features(images, train=False)["final"])

    def outputs(self, images: jax.Array, *, train: bool) -> Outputs:
        """Logits, and in training those of the auxiliary heads; `init` through this method makes their variables.

        Raises:
          UserError: an auxiliary head reads an endpoint that the backbone, with these fields, does not make.
        """
        ends = self.features(images, train=train)
        for name in self.aux:
            check_endpoint(self, name, ends, "aux")
        aux: dict[str, Any] = {}
        if train or self.is_initializing():
            aux = {name: head(ends[name], train=train) for name, head in self.aux.items()}
        return Outputs(self.classify(ends["final"], train=train), aux)


def extract_features(model: nn.Module, images: jax.Array, *, train: bool) -> dict[str, jax.Array]:
    """The maps that the backbone of a Classifier or a Segmenter makes; see `Classifier.features`."""
    shape = list(images.shape)
    if images.ndim != 4:
        raise UserError(f"images are [B, H, W, C], not {shape}; a single one is image[None]")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise UserError(f"images are {images.dtype}, but a model takes normalised floats: normalize(images)")
    channels_first = shape[1] in (1, 3) and shape[2] == shape[3] > 4
    if channels_first and model.is_initializing():
        raise UserError(f"images are [B, H, W, C], not {shape}; {_CHANNELS_LAST}")
    frozen = "batch_stats" in model.variables and not model.is_mutable_collection("batch_stats")
    if train and not model.is_initializing() and frozen:
        raise UserError(f"train=True updates batch norm's statistics, so {_TRAINING}")
    try:
        return model.backbone(images, train=train)
    except ScopeParamShapeError as error:
        hint = f"; {_CHANNELS_LAST}" if channels_first else "; images have as many channels as those of init"
        raise UserError(f"images {shape} do not fit the variables{hint} ({error})".split(" (https")[0]) from error


def check_endpoint(model: nn.Module, name: str, ends: Mapping[str, jax.Array], reader: str) -> None:
    """Raises UserError if the backbone of the model makes no endpoint of this name, which `reader` reads."""
    if name not in ends:
        hint = did_you_mean(name, ends) or f"; there is {', '.join(ends)}"
        raise UserError(f"{reader}: {type(model.backbone).__name__} makes no endpoint {name!r}{hint}")
