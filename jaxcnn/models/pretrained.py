"""Weights of other frameworks as our variables: every key is used and every parameter filled, or nothing is.

A family says in its own file what the reference calls each layer (`torchvision_name(model, path)`); the rest is the
same for all: kernels OIHW -> HWIO, dense [O, I] -> [I, O], the first layer after a flatten from (C, H, W) to (H, W, C).
"""

import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Set
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxcnn.errors import UserError
from jaxcnn.files import check_regular
from jaxcnn.models import (
    MODELS,
    alexnet,
    create_model,
    densenet,
    efficientnet,
    googlenet,
    inception_v3,
    inception_v4,
    resnet,
    senet,
    vgg,
)
from jaxcnn.models.catalogue import CATALOGUE
from jaxcnn.models.classifier import Classifier
from jaxcnn.models.heads import FC

# (model, path of one of our layers, such as "backbone/layer1_0/conv1") -> the reference's name of it, "layer1.0.conv1".
Naming = Callable[[Classifier, str], str]

REFERENCES: dict[type[nn.Module], dict[str, Naming]] = {
    alexnet.AlexNet: {"torchvision": alexnet.torchvision_name},
    resnet.ResNet: {"torchvision": resnet.torchvision_name},
    senet.SENet: {"timm": senet.timm_name},
    vgg.VGG: {"torchvision": vgg.torchvision_name},
    googlenet.GoogLeNet: {"torchvision": googlenet.torchvision_name},
    inception_v3.InceptionV3: {"torchvision": inception_v3.torchvision_name},
    inception_v4.InceptionV4: {"timm": inception_v4.timm_name},
    densenet.DenseNet: {
        "torchvision": densenet.torchvision_name,
        "torchvision's files": densenet.torchvision_file_name,
    },
    efficientnet.EfficientNet: {
        "torchvision": efficientnet.torchvision_name,
        "timm": efficientnet.timm_name,
        "efficientnet_pytorch": efficientnet.efficientnet_pytorch_name,
    },
}
LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


def from_torch(name: str, weights: Mapping[str, Any] | str | os.PathLike, **fields: Any) -> dict[str, Any]:
    """The variables of model `name` with the weights of torchvision or timm, whichever the keys are of.

    Args:
      name: one of list_models().
      weights: a state dict of tensors or arrays, or a .pth or .safetensors file that holds one.
      **fields: as in create_model, for a model that was changed in the same way.

    Returns:
      {"params": ..., "batch_stats": ... if any}, float32 NumPy arrays; auxiliary heads only where `weights` has them.

    Raises:
      UserError: no such model, no weights known for it, or keys or shapes that do not fit; the message lists them.
    """
    model = create_model(name, **fields)
    known = REFERENCES.get(type(model.backbone), {})
    if not known:
        raise UserError(f"no other library's weights are known for {name!r}")
    given = {key: value for key, value in read_weights(weights).items() if not key.endswith("num_batches_tracked")}
    wanted = leaves(model, CATALOGUE[name].input_shape)
    names = _best_names(model, wanted, given.keys())
    problems = [
        *_listing("not in the file", sorted(set(names.values()) - given.keys())),
        *_listing(f"in the file but not in {name}", sorted(given.keys() - set(names.values()))),
    ]
    if problems:
        raise UserError(
            f"these are not the weights of {name!r} as {' or '.join(known)} names them{_whose(model, given.keys())}:\n"
            + "\n".join(problems)
        )
    converted, misfits = {}, []
    for path, key in names.items():
        try:
            converted[path] = _convert(model, path, _array(given[key]), wanted[path])
        except ValueError:
            misfits.append(f"{key}: {tuple(given[key].shape)} in the file, {path} has {wanted[path]}")
    if misfits:
        raise UserError(f"these weights do not fit {name!r} with {model.classes} classes:\n" + "\n".join(misfits[:10]))
    return unflatten_dict(converted, sep="/")


def _best_names(model: Classifier, wanted: Iterable[str], given: Set[str]) -> dict[str, str]:
    """{our leaf: the reference's key}, by the naming, with or without auxiliary heads, that fits `given` best."""
    main = [path for path in wanted if not path.split("/")[1].startswith("aux_")]
    choices = [
        {path: _torch_key(model, path, naming) for path in paths}
        for naming in REFERENCES[type(model.backbone)].values()
        for paths in (wanted, main)
    ]
    return min(choices, key=lambda names: len(set(names.values()) ^ given))


def _whose(model: Classifier, given: Set[str]) -> str:
    """A hint for a message: the models of the same family that have exactly these keys."""
    fitting = []
    for name, other in MODELS.items():
        if type(other.backbone) is type(model.backbone):
            wanted = leaves(other, CATALOGUE[name].input_shape)
            if set(_best_names(other, wanted, given).values()) == given:
                fitting.append(repr(name))
    return f" (the keys are those of {' or '.join(fitting)})" if fitting else ""


def leaves(model: Classifier, input_shape: tuple[int, int, int]) -> dict[str, tuple[int, ...]]:
    """{"params/backbone/conv1/kernel": shape, ...} of a model's variables, auxiliary heads included."""
    images = jax.ShapeDtypeStruct((1, *input_shape), np.float32)
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(0)}
    shapes = jax.eval_shape(lambda x: model.init(keys, x, train=False, method="outputs"), images)
    return {path: leaf.shape for path, leaf in flatten_dict(shapes, sep="/").items()}


def read_weights(weights: Mapping[str, Any] | str | os.PathLike) -> dict[str, Any]:
    """The state dict in a file or a mapping, without the wrappings that training scripts put around it.

    Raises:
      UserError: the file cannot be read, or holds no state dict.
    """
    if not isinstance(weights, Mapping):
        weights = _read_file(pathlib.Path(weights))
    for wrapping in ("state_dict", "model"):
        if isinstance(weights, Mapping) and isinstance(weights.get(wrapping), Mapping):
            weights = weights[wrapping]
    if not isinstance(weights, Mapping) or not all(hasattr(value, "shape") for value in weights.values()):
        raise UserError("this is no state dict: a mapping of names to tensors or arrays")
    if weights and all(key.startswith("module.") for key in weights):  # torch's DataParallel
        weights = {key.removeprefix("module."): value for key, value in weights.items()}
    return dict(weights)


def _read_file(file: pathlib.Path) -> Any:
    try:
        check_regular(file)
    except FileNotFoundError as error:
        raise UserError(f"{file}: no such file") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read: {error}") from error
    package = "safetensors" if file.suffix == ".safetensors" else "torch"
    try:
        if package == "safetensors":
            from safetensors.numpy import load_file

            return load_file(file)
        import torch

        return torch.load(file, map_location="cpu", weights_only=True)
    except ModuleNotFoundError as error:
        raise UserError(f"reading {file} needs {package}: pip install {package}") from error
    except Exception as error:  # both raise many types on damaged files
        raise UserError(f"{file} cannot be read: {str(error).strip().splitlines()[0]}") from error


def _torch_key(model: Classifier, path: str, naming: Naming) -> str:
    """The reference's key of one of our leaves."""
    _, layer = path.split("/", 1)
    layer, leaf = layer.rsplit("/", 1)
    return f"{naming(model, layer)}.{LEAVES[leaf]}"


def _convert(model: Classifier, path: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """One array in our layout. Raises ValueError where it does not fit."""
    if len(shape) == 4:
        array = array.transpose(2, 3, 1, 0)
    elif len(shape) == 2:
        array = array.reshape(array.shape[0], -1)  # a 1x1 convolution is a dense layer
        grid = _flattened_grid(model, path)
        if grid is not None:
            array = array.reshape(len(array), -1, *grid).transpose(0, 2, 3, 1).reshape(len(array), -1)
        array = array.T
    if array.shape != shape:
        raise ValueError
    return np.ascontiguousarray(array)


def _flattened_grid(model: Classifier, path: str) -> tuple[int, int] | None:
    """(height, width) that was flattened into this layer's inputs, where it is the first of an FC head."""
    part, layer = path.split("/")[1:3]
    head = model.head if part == "head" else model.aux[part.removeprefix("aux_")] if part != "backbone" else None
    return head.grid if isinstance(head, FC) and layer == head.layer_names[0] else None


def _array(tensor: Any) -> np.ndarray:
    if hasattr(tensor, "detach"):
        tensor = tensor.detach().cpu().float().numpy()
    return np.asarray(tensor, np.float32)


def _listing(title: str, names: list[str]) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return [f"  {title}: {', '.join(names[:10])}{more}"]
