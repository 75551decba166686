"""The linear classifier (S2 of docs/courses.md): no convolution, only a head. The MLP (mlp.py) shares its backbone.

The weights depend on the input size: one per pixel and unit.
"""

import jax
from flax import linen as nn

from jaxcnn.models.heads import FC


class Pixels(nn.Module):
    """The backbone of a net without one: its final map is the image."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """[B, H, W, C] -> {"final": [B, H, W, C]}."""
        return {"final": x}


# One weight per pixel and class: 7,850 parameters at 28x28x1, 3,072,010 at 640x480x1. The rows of the kernel, reshaped
# to images, are the classes' templates.
LINEAR_HEAD = FC(classes=10, names=("fc",))
