"""Small networks for tests of the training code, with the methods that a Classifier has."""

from typing import Any, NamedTuple

import flax.linen as nn


class Outputs(NamedTuple):
    logits: Any
    aux: dict


class TinyNet(nn.Module):
    """One convolution, then optional batch norm and dropout, global average pooling and a linear layer."""

    classes: int = 4
    width: int = 8
    norm: bool = True
    dropout: float = 0.0

    @nn.compact
    def __call__(self, images, *, train):
        x = nn.Conv(self.width, (3, 3), strides=2, padding="VALID", name="conv1")(images)
        if self.norm:
            x = nn.BatchNorm(use_running_average=not train, momentum=0.9, name="bn1")(x)
        x = nn.relu(x).mean((1, 2))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.classes, name="fc1")(x)

    def outputs(self, images, *, train):
        return Outputs(self(images, train=train), {})
