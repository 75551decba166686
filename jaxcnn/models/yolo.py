"""YOLO (Redmon, Divvala, Girshick & Farhadi 2016, "You Only Look Once"): version 1, on a grid of 7 x 7 cells.

The paper's net (Figure 3) has 24 convolutions and two fully connected layers; its first 20 are trained on ImageNet
first, with average pooling and one fully connected layer (section 2.2): `yolo_v1_pretraining`. Fast YOLO has nine
convolutions (section 2.1 names their number only; the widths, and fully connected layers of 256 and 4096, are those of
yolo-tiny.cfg in the released code of 2015). Every layer but the last is followed by a leaky ReLU of slope 0.1
(equation 2), the first fully connected layer by dropout of 0.5 (section 2.2).

`yolo_v1_small` is ours, for two CPU cores: six convolutions as Fast YOLO begins, with batch norm, and a 1x1 one as the
last layer, so that the cells have 16 x 16 pixels, each sees its surroundings alone, and images may have any size.

Departures: the released code's later configuration (yolov1.cfg) has batch norm and a locally connected layer; here
`norm="batch"` is a field and the locally connected layer is left out. Initialisation: the paper gives none; He's.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcnn.errors import UserError
from jaxcnn.models.detector import GridOutputs
from jaxcnn.models.layers import (
    INITIALIZERS,
    Dtype,
    Init,
    Norm,
    activate,
    apply_norm,
    check_window,
    conv,
    max_pool,
    needs_bias,
)

Stages = tuple[tuple[tuple[int, int, int], ...], ...]

# (kernel, width, stride) of each convolution, by stage; a 2x2 max pooling stands between the stages.
FIGURE_3: Stages = (
    ((7, 64, 2),),
    ((3, 192, 1),),
    ((1, 128, 1), (3, 256, 1), (1, 256, 1), (3, 512, 1)),
    (*((1, 256, 1), (3, 512, 1)) * 4, (1, 512, 1), (3, 1024, 1)),
    (*((1, 512, 1), (3, 1024, 1)) * 2, (3, 1024, 1), (3, 1024, 2), (3, 1024, 1), (3, 1024, 1)),
)
PRETRAINING: Stages = (*FIGURE_3[:-1], FIGURE_3[-1][:4])
FAST: Stages = (*(((3, width, 1),) for width in (16, 32, 64, 128, 256, 512)), ((3, 1024, 1),) * 3)
SMALL: Stages = (*FAST[:4], ((3, 256, 1), (3, 256, 1)))


class Darknet(nn.Module):
    """The convolutions of YOLO: each with a norm and a leaky ReLU, a 2x2 max pooling between the stages.

    Attributes:
      stages: (kernel, width, stride) of each convolution, by stage.
      norm: after each convolution; "none" in the paper.
      width: multiplies every width.
    """

    stages: Stages = FIGURE_3
    norm: Norm = "none"
    width: float = 1.0
    kernel_init: Init = "he_fan_in"
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """[B, 448, 448, 3] -> stage1 [B, 224, 224, 64], ..., stage5 and final [B, 7, 7, 1024]."""
        smallest = 1
        for layers in reversed(self.stages):
            for _, _, stride in reversed(layers):
                smallest = stride * (smallest - 1) + 1
            smallest *= 2
        check_window(x, smallest // 2, f"the stack of {len(self.stages) - 1} poolings")  # none before the first stage
        ends, number = {}, 0
        for stage, layers in enumerate(self.stages, 1):
            if stage > 1:
                x = max_pool(x, 2, stride=2)
            for kernel, width, stride in layers:
                number += 1
                x = conv(
                    max(1, round(width * self.width)),
                    kernel,
                    stride=stride,
                    padding=kernel // 2,
                    bias=needs_bias(self.norm),
                    name=f"conv{number}",
                    dtype=self.dtype,
                    kernel_init=self.kernel_init,
                )(x)
                x = apply_norm(x, self.norm, train=train, name=f"bn{number}", dtype=self.dtype)
                x = activate(x, "leaky_relu")
            ends[f"stage{stage}"] = x
        return ends | {"final": x}


class FCGrid(nn.Module):
    """Fully connected layers that see the whole image and answer for a grid of cells (Figure 3).

    The outputs lie as in the released code: all class probabilities, cell by cell, then all confidences, all boxes.

    Attributes:
      classes: C of every cell.
      boxes: P, boxes of every cell; B in the paper.
      grid: (rows, columns) of cells; S x S in the paper.
      widths: of the hidden layers.
      dropout: behind the last hidden layer.
    """

    classes: int = 20
    boxes: int = 2
    grid: tuple[int, int] = (7, 7)
    widths: tuple[int, ...] = (4096,)
    dropout: float = 0.5
    kernel_init: Init = "he_fan_in"
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> GridOutputs:
        """[B, 7, 7, 1024] -> GridOutputs of 7 x 7 cells."""
        if min(self.classes, self.boxes, *self.grid) < 1:
            raise UserError(f"the grid has {self.classes} classes, {self.boxes} boxes and {self.grid} cells")
        x = x.reshape(len(x), -1)
        init = INITIALIZERS[self.kernel_init]
        for number, width in enumerate(self.widths, 1):
            x = activate(nn.Dense(width, dtype=self.dtype, kernel_init=init, name=f"fc{number}")(x), "leaky_relu")
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        rows, columns = self.grid
        cells = rows * columns
        sizes = [cells * self.classes, cells * self.boxes, cells * self.boxes * 4]
        name = f"fc{len(self.widths) + 1}"
        x = nn.Dense(sum(sizes), dtype=self.dtype, kernel_init=init, name=name)(x).astype(jnp.float32)
        classes, confidence, boxes = jnp.split(x, [sizes[0], sizes[0] + sizes[1]], axis=1)
        return GridOutputs(
            boxes=boxes.reshape(-1, rows, columns, self.boxes, 4),
            confidence=confidence.reshape(-1, rows, columns, self.boxes),
            classes=classes.reshape(-1, rows, columns, self.classes),
        )


class ConvGrid(nn.Module):
    """A 1x1 convolution that answers for each position of the last map, for images of any size. Not in the paper.

    Attributes:
      classes: C of every cell.
      boxes: P, boxes of every cell.
    """

    classes: int = 20
    boxes: int = 2
    kernel_init: Init = "normal_0.01"
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> GridOutputs:
        """[B, Y, X, D] -> GridOutputs of Y x X cells."""
        width = self.classes + 5 * self.boxes
        x = conv(width, 1, name="conv", dtype=self.dtype, kernel_init=self.kernel_init)(x).astype(jnp.float32)
        classes, confidence, boxes = jnp.split(x, [self.classes, self.classes + self.boxes], axis=-1)
        # Roots of a width and height of 0.3 and the middle of the cell: from 0 the square of a root has no gradient.
        start = jnp.array([0.5, 0.5, 0.3, 0.3], jnp.float32)
        return GridOutputs(boxes.reshape(*x.shape[:3], self.boxes, 4) + start, confidence, classes)


YOLO_HEAD = FCGrid()
FAST_HEAD = FCGrid(widths=(256, 4096))
