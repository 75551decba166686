"""LeNet-5 (LeCun, Bottou, Bengio, Haffner 1998, section II.B), as published and in its modern form.

LeNet1998 + RBF is the paper's: trainable sub-sampling, the hand-made table between S2 and C3, the scaled tanh, fixed
radial basis outputs; exactly 60,000 trainable parameters. Departure: the loss outside is softmax cross-entropy of minus
the RBF distances, which is the paper's equation 9 without the constant term of its "rubbish class".

LeNet is what "LeNet-5" has come to mean: C3 sees all six maps, sub-sampling is average pooling without parameters, the
output is linear; 61,706 parameters. Both take 32x32x1: 28x28 is padded by 2.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.linen.dtypes import promote_dtype

from jaxcnn.errors import UserError
from jaxcnn.models.heads import FC
from jaxcnn.models.layers import Activation, Dtype, activate, avg_pool, check_window, conv

# Table I: the maps of S2 that each map of C3 reads.
TABLE_1 = (
    *((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5)),
    *((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5)),
    *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5)),
    (0, 1, 2, 3, 4, 5),
)


class LeNet(nn.Module):
    """C1, S2, C3, S4 in the modern form. Initialisation: "lecun_normal", of variance 1/fan_in; biases 0."""

    activation: Activation = "tanh"
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """[B, 32, 32, 1] -> stage1 [B, 28, 28, 6], stage2 [B, 10, 10, 16], final [B, 5, 5, 16]."""
        check_window(x, 16, "the stack of two 5x5 convolutions and 2x2 poolings")
        stage1 = activate(conv(6, 5, name="c1", dtype=self.dtype)(x), self.activation)
        x = avg_pool(stage1, 2, stride=2)
        stage2 = activate(conv(16, 5, name="c3", dtype=self.dtype)(x), self.activation)
        return {"stage1": stage1, "stage2": stage2, "final": avg_pool(stage2, 2, stride=2)}


LENET_HEAD = FC(classes=10, widths=(120, 84), names=("c5", "f6", "output"), grid=(5, 5), activation="tanh")


def uniform_1998(key: jax.Array, shape: tuple[int, ...], fan_in: int | np.ndarray) -> jax.Array:
    """U(-2.4/fan_in, 2.4/fan_in) (appendix A of the paper)."""
    return jax.random.uniform(key, shape, jnp.float32, -1.0, 1.0) * jnp.asarray(2.4 / fan_in, jnp.float32)


class Subsampling(nn.Module):
    """S2 and S4: sum of each 2x2 block, times a coefficient per map, plus a bias, through the scaled tanh."""

    dtype: Dtype = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, H/2, W/2, C]."""
        maps = x.shape[-1]
        coefficient = self.param("coefficient", uniform_1998, (maps,), 4)
        bias = self.param("bias", nn.initializers.zeros, (maps,))
        sums = 4 * avg_pool(x, 2, stride=2)
        return activate(sums * coefficient.astype(self.dtype) + bias.astype(self.dtype), "scaled_tanh")


class PartialConv(nn.Module):
    """C3: a 5x5 convolution with the connections of TABLE_1 only; kernel [5, 5, 60], bias [16]: 1,516 parameters."""

    dtype: Dtype = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, 6] -> [B, H-4, W-4, 16]."""
        source = np.array([i for maps in TABLE_1 for i in maps])
        target = np.array([j for j, maps in enumerate(TABLE_1) for _ in maps])
        fan_in = np.array([25 * len(TABLE_1[j]) for j in target])
        kernel = self.param("kernel", uniform_1998, (5, 5, len(source)), fan_in)
        bias = self.param("bias", nn.initializers.zeros, (len(TABLE_1),))
        # Absent connections are zeros that are no parameters: no gradient and no decay reaches them.
        dense = jnp.zeros((5, 5, 6, len(TABLE_1)), kernel.dtype).at[:, :, source, target].set(kernel)
        x, dense, bias = promote_dtype(x, dense, bias, dtype=self.dtype)
        return (
            jax.lax.conv_general_dilated(x, dense, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")) + bias
        )


class LeNet1998(nn.Module):
    """C1, S2, C3, S4 as published. Initialisation: U(-2.4/fan_in, 2.4/fan_in), biases 0."""

    dtype: Dtype = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """[B, 32, 32, 1] -> stage1 [B, 28, 28, 6], stage2 [B, 10, 10, 16], final [B, 5, 5, 16]."""
        check_window(x, 16, "the stack of two 5x5 convolutions and 2x2 poolings")
        init = lambda key, shape, dtype: uniform_1998(key, shape, 25)  # noqa: E731
        c1 = conv(6, 5, name="c1", dtype=self.dtype, kernel_init=init)
        stage1 = activate(c1(x), "scaled_tanh")
        x = Subsampling(self.dtype, name="s2")(stage1)
        stage2 = activate(PartialConv(self.dtype, name="c3")(x), "scaled_tanh")
        return {"stage1": stage1, "stage2": stage2, "final": Subsampling(self.dtype, name="s4")(stage2)}


class RBF(nn.Module):
    """C5 (120), F6 (84) and one radial basis unit per digit, whose fixed centre is the digit's 7x12 bitmap (figure 3).

    The bitmaps are drawn after the paper's stylised characters, not copied bit by bit.
    """

    classes: int = 10
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """[B, 5, 5, 16] -> minus the squared distances to the centres, [B, 10] float32."""
        if self.classes != len(BITMAPS):
            raise UserError(
                f"lenet5_1998 has a bitmap for each of {len(BITMAPS)} digits, not for {self.classes} classes"
            )
        if x.shape[1:3] != (5, 5):
            raise UserError(f"lenet5_1998 takes 32x32 images; S4 is {x.shape[1]}x{x.shape[2]} and must be 5x5")
        init = lambda key, shape, dtype: uniform_1998(key, shape, shape[0])  # noqa: E731
        x = x.reshape(x.shape[0], -1)
        x = activate(nn.Dense(120, dtype=self.dtype, kernel_init=init, name="c5")(x), "scaled_tanh")
        x = activate(nn.Dense(84, dtype=self.dtype, kernel_init=init, name="f6")(x), "scaled_tanh")
        centres = np.array([[1.0 if pixel == "#" else -1.0 for pixel in bitmap] for bitmap in BITMAPS], np.float32)
        return -jnp.sum(jnp.square(x.astype(jnp.float32)[:, None] - centres), axis=-1)


# 7 pixels wide, 12 high, row by row.
BITMAPS = tuple(
    "".join(rows.split())
    for rows in (
        "....... ..###.. .#...#. #.....# #.....# #.....# #.....# #.....# #.....# .#...#. ..###.. .......",
        "....... ...#... ..##... .###... ...#... ...#... ...#... ...#... ...#... ...#... .#####. .......",
        "....... ..####. .#....# ......# ......# .....#. ....#.. ...#... ..#.... .#..... ####### .......",
        "....... .#####. #.....# ......# ......# ..####. ......# ......# ......# #.....# .#####. .......",
        "....... ....##. ...#.#. ..#..#. .#...#. #....#. ####### .....#. .....#. .....#. .....#. .......",
        "....... ####### #...... #...... #.####. ##....# ......# ......# ......# #.....# .#####. .......",
        "....... ..####. .#..... #...... #...... #.####. ##....# #.....# #.....# .#....# ..####. .......",
        "....... ####### ......# .....#. .....#. ....#.. ....#.. ...#... ...#... ..#.... ..#.... .......",
        "....... ..###.. .#...#. #.....# .#...#. ..###.. .#...#. #.....# #.....# .#...#. ..###.. .......",
        "....... .####.. #....#. #.....# #.....# #....## .####.# ......# ......# .....#. .####.. .......",
    )
)
