"""Confusion: how many pixels of each true class were given each class, counted on the device, exact at any size."""

import jax
import jax.numpy as jnp
import numpy as np

BITS = 12
"""Of the low word. Sums of words stay below 2^31 for 2^19 batches (524,288) and 2^43 pixels (8.8 trillion)."""


def count(truth: jax.Array, predicted: jax.Array, classes: int, ignore: int | None = 255) -> jax.Array:
    """The confusion matrix of label maps, int32 [classes, classes], rows the truth.

    As `fast_hist` in score.py of the FCN's authors, the truth alone says what counts: a pixel whose truth is `ignore`,
    or that names none of the classes, is left out, whatever is predicted there. Nothing that is predicted leaves a
    pixel out.

    Args:
      truth: integers [B, ...].
      predicted: integers of the same shape in [0, classes), such as an argmax over the logits; others are not noticed.
      classes: how many there are.
      ignore: the value of pixels that do not count, though it is a class's; None: there is none.

    Example:
        counts = count(batch["mask"], logits.argmax(-1), classes=21)
    """
    truth, predicted = truth.astype(jnp.int32), predicted.astype(jnp.int32)
    counted = (truth >= 0) & (truth < classes)
    if ignore is not None:
        counted &= truth != ignore
    cell = jnp.where(counted, truth * classes + predicted, classes**2)  # the last one is thrown away

    # Image by image: the images lie on different devices, and each counts its own before the counts are added.
    def of_image(cells: jax.Array) -> jax.Array:
        return jnp.zeros(classes**2 + 1, jnp.int32).at[cells.reshape(-1)].add(1)

    return jax.vmap(of_image)(cell).sum(0)[:-1].reshape(classes, classes)


def to_words(counts: jax.Array) -> jax.Array:
    """Counts, int32 [...] and not negative -> int32 [2, ...]: low and high words, whose sums are those of the counts.

    A validation set may have more than 2^31 pixels, and JAX has no int64 by default. Words add up on the device, over
    batches and devices; `from_words` puts the sums together on the host.
    """
    return jnp.stack([counts & ((1 << BITS) - 1), counts >> BITS])


def from_words(words: np.ndarray) -> np.ndarray:
    """Sums of words [2, ...] -> int64 [...]."""
    low, high = np.asarray(words).astype(np.int64)
    return low + (high << BITS)
