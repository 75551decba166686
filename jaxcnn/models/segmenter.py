"""Segmenter: a backbone that makes feature maps and a head that makes logits of every pixel."""

from collections.abc import Mapping

import jax
from flax import linen as nn
from flax.core import FrozenDict

from jaxcnn.models.classifier import Outputs, check_endpoint, extract_features
from jaxcnn.models.layers import check_choices


class Segmenter(nn.Module):
    """A pure function of (variables, images): uint8 never enters here, and nothing is normalised here.

        model = create_model("fcn8s_vgg16", classes=21)
        variables = model.init(key, images, train=False)
        classes = model.apply(variables, images, train=False).argmax(-1)  # [B, H, W]

    Raises UserError for a field of its parts that is none of the choices that the field's type lists.

    Attributes:
      backbone: images [B, H, W, C] -> {"stage1": ..., "final": ...}, maps [B, H', W', C'].
      head: ({name: map}, (H, W)) -> logits [B, H, W, classes].
      aux: heads used in training only, by the name of the endpoint that they read in the place of "final".
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
        """Images [B, H, W, C] -> logits [B, H, W, classes] float32."""
        _, height, width, _ = images.shape
        return self.segment(self.features(images, train=train), (height, width), train=train)

    def features(self, images: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """The backbone's maps by name, "final" among them.

        Raises:
          UserError: as Classifier.features.
        """
        return extract_features(self, images, train=train)

    def segment(self, ends: Mapping[str, jax.Array], size: tuple[int, int], *, train: bool) -> jax.Array:
        """The maps that `features` made of images of (height, width) -> logits [B, H, W, classes] float32."""
        return self.head(ends, size, train=train)

    def outputs(self, images: jax.Array, *, train: bool) -> Outputs:
        """Logits, and in training those of the auxiliary heads, also at the image's size.

        `init` through this method makes the variables of the auxiliary heads.

        Raises:
          UserError: an auxiliary head reads an endpoint that the backbone, with these fields, does not make.
        """
        ends, size = self.features(images, train=train), (images.shape[1], images.shape[2])
        for name in self.aux:
            check_endpoint(self, name, ends, "aux")
        aux: dict[str, jax.Array] = {}
        if train or self.is_initializing():
            aux = {name: head({"final": ends[name]}, size, train=train) for name, head in self.aux.items()}
        return Outputs(self.segment(ends, size, train=train), aux)
