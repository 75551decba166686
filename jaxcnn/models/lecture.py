"""Three small networks of a course (S5, S6 and S7 of docs/courses.md), layer by layer as its notes print them."""

import jax
from flax import linen as nn

from jaxcnn.models.heads import FC
from jaxcnn.models.layers import Activation, Dtype, Init, Norm, activate, apply_norm, check_window, conv, max_pool


class SimpleCNN(nn.Module):
    """S5, for 28x28x1: 80, 1,168 and 2,320 parameters here, 16,448 and 650 in the head; 20,666 in all.

    The notes give the sigmoid for the hidden FC layer and no activation for the convolutions: ReLU here.
    """

    activation: Activation = "relu"
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """[B, 28, 28, 1] -> stage1 [B, 28, 28, 8], stage2 [B, 12, 12, 16], stage3 = final [B, 4, 4, 16]."""
        check_window(x, 18, "the stack of three 3x3 convolutions and two 2x2 poolings")
        stage1 = activate(conv(8, 3, padding=1, name="conv1", dtype=self.dtype)(x), self.activation)
        x = max_pool(stage1, 2, stride=2)
        stage2 = activate(conv(16, 3, name="conv2", dtype=self.dtype)(x), self.activation)
        x = max_pool(stage2, 2, stride=2)
        stage3 = activate(conv(16, 3, name="conv3", dtype=self.dtype)(x), self.activation)
        return {"stage1": stage1, "stage2": stage2, "stage3": stage3, "final": stage3}


SIMPLE_HEAD = FC(classes=10, widths=(64,), names=("fc1", "fc2"), grid=(4, 4), activation="sigmoid")


class FlowersCNN(nn.Module):
    """S6, for 180x180x3: 448, 4,640 and 18,496 parameters here, 3,965,056 and 645 in the head; 3,989,285 in all.

    The notes rescale by 1/255 inside the net; here that is the experiment's normalisation.
    """

    activation: Activation = "relu"
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """[B, 180, 180, 3] -> stage1 [B, 180, 180, 16], stage2 [B, 90, 90, 32], ..., final [B, 22, 22, 64]."""
        check_window(x, 8, "the stack of three 2x2 poolings")
        ends = {}
        for stage, width in enumerate((16, 32, 64), 1):
            x = activate(conv(width, 3, padding=1, name=f"conv{stage}", dtype=self.dtype)(x), self.activation)
            ends[f"stage{stage}"] = x
            x = max_pool(x, 2, stride=2)
        return ends | {"final": x}


FLOWERS_HEAD = FC(classes=5, widths=(128,), names=("fc1", "fc2"), grid=(22, 22), dropout=0.2, dropout_first=True)


class BatchNormCNN(nn.Module):
    """S7, for 28x28x1: six 2x2 convolutions, each sigmoid then batch norm, the third and the sixth with stride 2.

    510,794 trainable parameters and 896 running statistics; without batch norm (`norm="none"`) 509,898 and none.
    Not in the notes: other norms, `width`, which multiplies every width, and `kernel_init`.
    """

    norm: Norm = "batch"
    activation: Activation = "sigmoid"
    width: float = 1.0
    kernel_init: Init = "lecun_normal"
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """[B, 28, 28, 1] -> stage1 [B, 13, 13, 128], stage2 = final [B, 5, 5, 128]."""
        check_window(x, 10, "the stack of six 2x2 convolutions")
        ends = {}
        for layer, (width, stride) in enumerate(((32, 1), (64, 1), (128, 2)) * 2, 1):
            x = conv(
                max(1, round(width * self.width)),
                2,
                stride=stride,
                kernel_init=self.kernel_init,
                name=f"conv{layer}",
                dtype=self.dtype,
            )(x)
            x = activate(x, self.activation)
            x = apply_norm(x, self.norm, train=train, name=f"bn{layer}", dtype=self.dtype)
            if layer % 3 == 0:
                ends[f"stage{layer // 3}"] = x
        return ends | {"final": x}


BATCH_NORM_HEAD = FC(classes=10, widths=(128,), names=("fc1", "fc2"), grid=(5, 5), activation="sigmoid")
