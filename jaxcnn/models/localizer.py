"""Localizer: a classifier that also says where its object is: regression heads beside the head of the logits.

The form of OverFeat (Sermanet et al. 2014, section 4.1) and of VGG (Simonyan & Zisserman 2015, appendix A.1): one
backbone, and a head whose last layer predicts four numbers of the box in place of the scores of classes. Both papers
train the box head after the classifier, on its features; here the heads of one net are trained together, or the box
head behind a classifier's weights (InitFrom).
"""

from collections.abc import Mapping

import flax.struct
import jax
import jax.numpy as jnp
from einops import rearrange
from flax import linen as nn
from flax.core import FrozenDict

from jaxcnn.errors import UserError
from jaxcnn.models.classifier import extract_features
from jaxcnn.models.layers import INITIALIZERS, Activation, Dtype, Init, activate, adaptive_avg_pool, check_choices


@flax.struct.dataclass
class LocalizerOutputs:
    """What a Localizer says of each image, all float32.

    Attributes:
      logits: [B, classes].
      boxes: [B, K, 4], K being 1, or the classes if each has a box of its own: (x of the middle, y of the middle,
        width, height) as parts of the image's sides (VGG, appendix A.1), linear and unbounded.
      points: [B, N, 2], (x, y) of landmarks as parts of the image's sides; N is 0 without a head for them.
      aux: of no use; outputs of every model have it.
    """

    logits: jax.Array
    boxes: jax.Array
    points: jax.Array
    aux: Mapping[str, jax.Array] = FrozenDict()


class RegressionHead(nn.Module):
    """Fully connected layers over the last map, flattened, the last of which is linear: numbers in place of classes.

    Attributes:
      values: how many numbers: 4 for one box, 4 * classes for one of each class, 2 * N for N landmarks.
      widths: of the hidden layers. OverFeat has (4096, 1024), VGG's are those of its classifier, (4096, 4096).
      grid: (height, width) that the map is pooled to by averages; None flattens it as it is.
      activation: after each hidden layer.
      dropout: probability; after each hidden layer.
      start: what the last layer says before it has learned anything, its bias. At 0.5 a box lies in the middle and has
        half of the image's sides; the papers name none.
      kernel_init: of the kernels; those of the last layer start at a tenth of it, so that `start` is nearly what it
        says.
    """

    values: int
    widths: tuple[int, ...] = ()
    grid: tuple[int, int] | None = None
    activation: Activation = "relu"
    dropout: float = 0.0
    start: float = 0.5
    kernel_init: Init = "lecun_normal"
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """[B, H, W, C] -> [B, values] float32."""
        if self.grid is not None:
            x = adaptive_avg_pool(x, self.grid)
        x = rearrange(x, "b h w c -> b (h w c)")
        init = INITIALIZERS[self.kernel_init]
        for number, width in enumerate(self.widths, 1):
            x = activate(nn.Dense(width, dtype=self.dtype, kernel_init=init, name=f"fc{number}")(x), self.activation)
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        last = nn.Dense(
            self.values,
            dtype=self.dtype,
            kernel_init=lambda key, shape, dtype=jnp.float32: 0.1 * init(key, shape, dtype),
            bias_init=nn.initializers.constant(self.start),
            name="values",
        )
        return last(x).astype(jnp.float32)


class Localizer(nn.Module):
    """The class of an image's one object, its box, and its landmarks if there is a head for them.

        net = create_model("vgg11_bn", classes=20)
        model = Localizer(net.backbone, net.head, box_head=RegressionHead(4, widths=(256,)))

    Its backbone and head have the paths of a Classifier's, so that a trained one's weights serve: all that is new lies
    under "params/box_head/" and "params/points_head/", as in InitFrom(run, exclude=("params/box_head/*",)).

    Raises UserError for a field of its parts that is none of the choices that the field's type lists, or if a head
    gives another number of values.

    Attributes:
      backbone: images [B, H, W, C] -> {"stage1": ..., "final": ...}, maps [B, H', W', C'].
      head: the final map -> logits [B, classes].
      box_head: the final map -> [B, 4], one box for all classes, or [B, 4 * classes], one for each (VGG's
        "single-class" and "per-class regression"; per-class was better there).
      points_head: the final map -> [B, 2 * N], or None.
      aux: of no use to it; every model has the field.
    """

    backbone: nn.Module
    head: nn.Module
    box_head: RegressionHead = RegressionHead(4)
    points_head: RegressionHead | None = None
    aux: Mapping[str, nn.Module] = FrozenDict()

    def __post_init__(self):
        # Frozen, because modules are hashed.
        object.__setattr__(self, "aux", FrozenDict(self.aux))
        super().__post_init__()
        for part in (self.backbone, self.head, self.box_head, self.points_head):
            if part is not None:
                check_choices(part)
        if self.box_head.values not in (4, 4 * self.classes):
            raise UserError(
                f"box_head.values is {self.box_head.values}; it must be 4, one box for all classes, or "
                f"{4 * self.classes}, one for each of {self.classes}"
            )
        if self.points_head is not None and self.points_head.values % 2:
            raise UserError(f"points_head.values is {self.points_head.values}; it must be even: x and y of each point")

    @property
    def classes(self) -> int:
        return self.head.classes

    @property
    def points(self) -> int:
        """How many landmarks it gives."""
        return 0 if self.points_head is None else self.points_head.values // 2

    def __call__(self, images: jax.Array, *, train: bool) -> LocalizerOutputs:
        """Images [B, H, W, C] -> what every head says."""
        return self.localize(self.features(images, train=train)["final"], train=train)

    def features(self, images: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """The backbone's maps by name, "final" among them.

        Raises:
          UserError: as Classifier.features.
        """
        return extract_features(self, images, train=train)

    def classify(self, final: jax.Array, *, train: bool) -> jax.Array:
        """The final map -> logits [B, classes] float32."""
        return self.head(final, train=train)

    def localize(self, final: jax.Array, *, train: bool) -> LocalizerOutputs:
        """The final map -> what every head says."""
        boxes = rearrange(self.box_head(final, train=train), "b (k four) -> b k four", four=4)
        points = jnp.zeros((len(final), 0, 2))
        if self.points_head is not None:
            points = rearrange(self.points_head(final, train=train), "b (n two) -> b n two", two=2)
        return LocalizerOutputs(self.classify(final, train=train), boxes, points)

    def outputs(self, images: jax.Array, *, train: bool) -> LocalizerOutputs:
        """The same as a call: what a loss reads."""
        return self(images, train=train)
