"""Classifier: a backbone that makes feature maps and a head that makes logits of the last one."""

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
from flax import linen as nn
from flax.core import FrozenDict

from jaxcnn.errors import UserError, did_you_mean
from jaxcnn.models.layers import check_choices


@flax.struct.dataclass
class Outputs:
    """Logits [B, classes] float32, and those of the auxiliary heads by the name of the endpoint that they read."""

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
        """Every stage's map before its pooling, by name, and the map that the head reads as "final"."""
        return self.backbone(images, train=train)

    def classify(self, final: jax.Array, *, train: bool) -> jax.Array:
        """The final map -> logits [B, classes] float32."""
        return self.head(final, train=train)

    def outputs(self, images: jax.Array, *, train: bool) -> Outputs:
        """Logits, and in training those of the auxiliary heads; `init` through this method makes their variables.

        Raises:
          UserError: an auxiliary head reads an endpoint that the backbone, with these fields, does not make.
        """
        ends = self.features(images, train=train)
        for name in self.aux:
            if name not in ends:
                hint = did_you_mean(name, ends) or f"; there is {', '.join(ends)}"
                raise UserError(f"aux: {type(self.backbone).__name__} makes no endpoint {name!r}{hint}")
        aux: dict[str, Any] = {}
        if train or self.is_initializing():
            aux = {name: head(ends[name], train=train) for name, head in self.aux.items()}
        return Outputs(self.classify(ends["final"], train=train), aux)
