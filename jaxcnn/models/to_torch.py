"""Our variables as another library's state dict: the reverse of from_torch, by the same names."""

import dataclasses
import fnmatch
from collections.abc import Mapping, Set
from typing import Any, cast

import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict

from jaxcnn.errors import UserError, did_you_mean
from jaxcnn.models import MODELS, Model
from jaxcnn.models.pretrained import REFERENCES, Reference, flattened_grid, has_names, torch_key, written


def to_torch(model: nn.Module, variables: Mapping[str, Any], library: str | None = None) -> dict[str, np.ndarray]:
    """The state dict that another library's net of this kind loads (`load_state_dict` takes torch tensors of it).

    `num_batches_tracked` is left out, which PyTorch allows of a plain dict. from_torch brings the result back, equal to
    the bit.

    Args:
      model: a net of a family that another library has.
      variables: {"params": ..., "batch_stats": ... if any}.
      library: what its name begins with, such as "torchvision" or "timm"; default the first that computes as the net.

    Returns:
      {key: float32 array that shares no memory with `variables`}.

    Raises:
      UserError: no library has such nets, or the one that is named computes something else.

    Example: to_torch(model, variables)["features.0.weight"].shape == (64, 3, 3, 3)
    """
    reference, net = _reference(model, library), cast(Model, model)
    state = {}
    for path, array in flatten_dict(dict(variables), sep="/").items():
        key = torch_key(net, path, reference.naming)
        state[key] = _converted(net, path, key, np.asarray(array, np.float32), reference)
    return state


def _reference(model: nn.Module, library: str | None) -> Reference:
    backbone: Any = getattr(model, "backbone", None)
    known = REFERENCES.get(type(backbone), {})
    if not known or not has_names(cast(Model, model)):
        raise UserError(
            "no other library's names are known for this net; npz, and safetensors with --names jaxcnn, take any"
        )
    named = {label: each for label, each in known.items() if library is None or label.startswith(library)}
    if not named:
        hint = did_you_mean(library or "", known) or "; there is"
        raise UserError(f"no names of {library!r} are known for this net{hint} {' and '.join(map(repr, known))}")
    checked = {field for each in named.values() for field in each.fields}
    if not _is_theirs(model, backbone, checked):
        raise UserError("this net has fields that the nets of that name in other libraries do not have; npz takes any")
    for reference in named.values():
        if all(getattr(backbone, field) == value for field, value in reference.fields.items()):
            return reference
    told = " or ".join(f"{label} ({written(each.fields)})" for label, each in named.items())
    here = {field: getattr(backbone, field) for field in sorted(checked, reverse=True)}
    raise UserError(f"this net has {written(here)}, and the nets of {told} compute something else")


OURS_ALONE = ("plain*", "*_cifar", "*_v1", "alexnet", "alexnet_single", "googlenet", "fcn[0-9]*")
"""Models of ours whose layers have names in another library, and whose nets it has not."""
HARMLESS = {"parent", "name", "dtype", "kernel_init", "drop_path", "decay"}
"""Fields that change no answer."""


def _is_theirs(model: nn.Module, backbone: Any, checked: Set[str]) -> bool:
    """Whether the backbone is that of a model which is another library's too, but for harmless fields and `checked`."""

    def fields(of: Any) -> dict[str, Any]:
        names = {field.name for field in dataclasses.fields(of)} - HARMLESS - checked
        values = {name: getattr(of, name) for name in names}
        return {name: "batch" if value == "frozen_batch" else value for name, value in values.items()}

    own = fields(backbone)
    return any(
        type(other) is type(model) and type(other.backbone) is type(backbone) and fields(other.backbone) == own
        for name, other in MODELS.items()
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in OURS_ALONE)
    )


def _converted(model: Model, path: str, key: str, array: np.ndarray, reference: Reference) -> np.ndarray:
    """One array in torch's layout."""
    if array.ndim == 4:
        array = array.transpose(3, 2, 0, 1)
    elif array.ndim == 2:
        array = array.T
        height, width = flattened_grid(model, path) or (1, 1)
        array = array.reshape(len(array), height, width, -1).transpose(0, 3, 1, 2)
        if not any(fnmatch.fnmatchcase(key, pattern) for pattern in reference.convolutions):
            array = array.reshape(len(array), -1)
    return np.array(array, order="C", copy=True)
