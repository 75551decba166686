"""python -m tests.ops.convolutions_on_devices FILE: the forms' outcomes for a batch in parts on 8 fake devices."""

import sys

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from tests.ops.test_convolution import SPREAD, given, outcomes


def main(file: str) -> None:
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    found = {}
    for name in SPREAD:
        form, images, weights = given(name, batch=8)
        images = jax.device_put(images, NamedSharding(mesh, PartitionSpec("data")))
        weights = jax.device_put(weights, NamedSharding(mesh, PartitionSpec()))
        for number, array in enumerate(outcomes(form, images, weights)):
            found[f"{name} {number}"] = array
    np.savez(file, **found)


if __name__ == "__main__":
    main(sys.argv[1])
