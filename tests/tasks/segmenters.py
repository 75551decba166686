"""Small nets that answer for each pixel."""

from typing import Any, NamedTuple

import flax.linen as nn


class Outputs(NamedTuple):
    logits: Any
    aux: dict


class Given(nn.Module):
    """The images are the logits, so that a test knows what is predicted."""

    classes: int

    def __call__(self, images, *, train):
        return images

    def outputs(self, images, *, train):
        return Outputs(images, {"other": -images})


class Pixelwise(nn.Module):
    """A 3x3 convolution to 8 channels and a 1x1 convolution to the classes."""

    classes: int

    @nn.compact
    def __call__(self, images, *, train):
        return nn.Conv(self.classes, (1, 1), name="score")(nn.relu(nn.Conv(8, (3, 3), name="conv1")(images)))

    def outputs(self, images, *, train):
        return Outputs(self(images, train=train), {})
