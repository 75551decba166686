"""The k-nearest-neighbour classifier (Cover & Hart 1967): every training image is kept, and the nearest k vote.

Nothing is trained. What a net has as parameters is here the training set itself, in the collection "memory":

    knn = KNN(classes=10, k=3)
    variables = knn.memorize(images, labels)
    logits = knn.apply(variables, queries, train=False)     # as of any other model

so that prediction and evaluation take it as they take a net: params {} and stats {"memory": ...}. Images to classify
must be in the units of the memorised ones: where the pipeline normalises, memorise normalised images.
"""

from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxcnn.errors import UserError, did_you_mean

Distance = Literal["l2", "l1", "cosine"]


class KNN(nn.Module):
    """Brute force over n memorised images of D values, in blocks on the device.

    Time per image is O(n D). Memory is the images in the type that they came in (uint8: n D bytes), one block of them
    in float32, and B x block distances; never B x n. Exact ties are deterministic: of equally near images the one
    memorised first counts as nearer, and of classes with equally many votes the one with the nearest image wins.
    Distances are float32 (float64 for float64 images), "l2" and "l1" sums over the differences: no digits are lost by
    cancellation, and pixels 0..255 are compared exactly, "l2" up to 258 values per image and "l1" up to 65,793.

    Attributes:
      classes: number of logits.
      k: how many neighbours vote; odd.
      distance: "l2" Euclidean, "l1" sum of absolute differences, "cosine" 1 - cosine of the angle (black images: 1).
      block: memorised images compared at a time.
    """

    classes: int
    k: int = 1
    distance: Distance = "l2"
    block: int = 1024

    def memorize(self, images: Any, labels: Any) -> dict[str, Any]:
        """The variables for training images [n, H, W, C] of any number type and integer labels [n].

        Raises:
          UserError: k is even or more than n, a label is no class, or images and labels differ in number.
        """
        images, labels = np.asarray(images), np.asarray(labels)
        self._check(len(images))
        if labels.shape != (len(images),):
            raise UserError(f"there are {len(images)} images to memorise, and labels {labels.shape}")
        if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() >= self.classes:
            raise UserError(f"the labels must be whole numbers from 0 to {self.classes - 1}")
        return {"memory": {"images": images, "labels": labels.astype(np.int32)}}

    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Images [B, H, W, C] -> logits [B, classes] float32, the logarithms of the shares of the votes.

        To every class's votes a millionth is added, so that no loss is infinite, and a thousandth to the winner's,
        which breaks a tie: softmax gives the shares to within a thousandth.
        """
        indices, _ = self.neighbours(images)
        labels = jnp.asarray(self._recall("labels"))[indices]
        votes = jax.nn.one_hot(labels, self.classes, dtype=jnp.float32).sum(1)
        nearest = jnp.argmax(labels[:, :, None] == jnp.arange(self.classes), axis=1)  # 0 too where there is none
        order = jnp.where(votes == votes.max(1, keepdims=True), nearest, self.k)
        winner = jax.nn.one_hot(jnp.argmin(order, axis=1), self.classes, dtype=jnp.float32)
        return jax.nn.log_softmax(jnp.log(votes + 1e-3 * winner + 1e-6))

    def neighbours(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Images [B, H, W, C] -> indices in memory [B, k] int32 of the k nearest, nearest first, and distances."""
        images, memory = jnp.asarray(images), jnp.asarray(self._recall("images"))
        count = len(memory)
        self._check(count)
        if memory.shape[1:] != images.shape[1:]:
            raise UserError(f"the images are {images.shape[1:]}, those in memory {memory.shape[1:]}")
        wide = jnp.promote_types(jnp.promote_types(images.dtype, memory.dtype), jnp.float32)
        queries = images.reshape(len(images), -1).astype(wide)
        block = min(self.block, count)

        def step(best, number):
            # The last block begins earlier where it would not be full; what was seen is then out of reach.
            start = jnp.minimum(number * block, count - block)
            rows = jax.lax.dynamic_slice_in_dim(memory, start, block).reshape(block, -1).astype(wide)
            indices = start + jnp.arange(block, dtype=jnp.int32)
            far = jnp.where(indices >= number * block, self._distances(queries, rows), jnp.inf)
            # top_k puts the first of equals first.
            far = jnp.concatenate([best[0], far], axis=1)
            indices = jnp.concatenate([best[1], jnp.broadcast_to(indices, (len(queries), block))], axis=1)
            nearness, chosen = jax.lax.top_k(-far, self.k)
            return (-nearness, jnp.take_along_axis(indices, chosen, axis=1)), None

        start = jnp.full((len(queries), self.k), jnp.inf, wide), jnp.zeros((len(queries), self.k), jnp.int32)
        (distances, indices), _ = jax.lax.scan(step, start, jnp.arange(-(-count // block), dtype=jnp.int32))
        return indices, jnp.sqrt(distances) if self.distance == "l2" else distances

    def _distances(self, queries: jax.Array, rows: jax.Array) -> jax.Array:
        """[B, D], [block, D] -> [B, block]; squares for "l2". XLA fuses the differences into their sum."""
        if self.distance == "cosine":
            queries, rows = (x / jnp.where((s := norm(x)) == 0, 1, s) for x in (queries, rows))
            return 1 - jnp.dot(queries, rows.T, precision="highest")
        differences = queries[:, None] - rows
        return (jnp.square(differences) if self.distance == "l2" else jnp.abs(differences)).sum(-1)

    def _recall(self, name: str) -> Any:
        if not self.has_variable("memory", name):
            raise UserError("this KNN remembers nothing: make its variables by memorize(images, labels)")
        return self.get_variable("memory", name)

    def _check(self, count: int) -> None:
        known = get_args(Distance)
        if self.distance not in known:
            raise UserError(
                f"no distance {self.distance!r}{did_you_mean(self.distance, known) or '; there is'} {known}"
            )
        if self.k < 1 or self.k % 2 == 0:
            raise UserError(f"k is {self.k}; it must be odd: two classes then cannot have equally many votes")
        if self.k > count:
            raise UserError(f"k is {self.k}, more than the {count} images in memory")
        if self.block < 1:
            raise UserError(f"block is {self.block}; it must be at least 1")


def norm(x: jax.Array) -> jax.Array:
    """[N, D] -> [N, 1]."""
    return jnp.sqrt(jnp.square(x).sum(-1, keepdims=True))
