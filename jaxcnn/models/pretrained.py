"""Weights of other frameworks as our variables: every key is used and every parameter filled, or nothing is.

A family says in its own file what the reference calls each layer (`torchvision_name(model, path)`); the rest is the
same for all: kernels OIHW -> HWIO, dense [O, I] -> [I, O], the first layer after a flatten from (C, H, W) to (H, W, C).
"""

import dataclasses
import json
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
    Model,
    alexnet,
    create_model,
    densenet,
    dilated,
    efficientnet,
    fpn,
    googlenet,
    inception_v3,
    inception_v4,
    rcnn,
    resnet,
    senet,
    vgg,
)
from jaxcnn.models.box_head import BoxHead
from jaxcnn.models.catalogue import CATALOGUE
from jaxcnn.models.heads import FC

# (model, path of one of our layers, such as "backbone/layer1_0/conv1") -> the reference's name of it, "layer1.0.conv1".
Naming = Callable[[Any, str], str]


@dataclasses.dataclass(frozen=True)
class Reference:
    """How another library names the layers of a family, and what its nets compute that no key or shape shows.

    Attributes:
      naming: of the layers.
      fields: of our backbone, as the library's nets have them; others are as in our model of that name.
      nets: what its own names of the nets begin with, if another reference has the same keys.
      note: for the message when weights do not fit.
      convolutions: patterns of its keys whose weights are those of convolutions, where we have dense layers.
    """

    naming: Naming
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    nets: str = ""
    note: str = ""
    convolutions: tuple[str, ...] = ()


TORCH = {"padding": "torch", "epsilon": 1e-5}
TENSORFLOW = {"padding": "tf", "epsilon": 1e-3}

REFERENCES: dict[type[nn.Module], dict[str, Reference]] = {
    alexnet.AlexNet: {"torchvision": Reference(alexnet.torchvision_name)},
    dilated.DilatedResNet: {"torchvision": Reference(dilated.torchvision_name)},
    fpn.ResNetFPN: {
        "torchvision": Reference(rcnn.torchvision_name),
        "torchvision's files": Reference(rcnn.torchvision_file_name),
    },
    resnet.ResNet: {"torchvision": Reference(resnet.torchvision_name)},
    senet.SENet: {
        "timm's legacy_seresnet50, legacy_senet154, ...": Reference(
            senet.timm_name,
            note="timm's seresnet50 and senet154, without legacy_, are other nets",
            convolutions=("*.se_module.*.weight",),
        )
    },
    vgg.VGG: {
        "torchvision": Reference(vgg.torchvision_name),
        "timm": Reference(vgg.timm_name, convolutions=("pre_logits.*.weight",)),
    },
    googlenet.GoogLeNet: {"torchvision": Reference(googlenet.torchvision_name)},
    inception_v3.InceptionV3: {"torchvision": Reference(inception_v3.torchvision_name)},
    inception_v4.InceptionV4: {"timm": Reference(inception_v4.timm_name)},
    densenet.DenseNet: {
        "torchvision": Reference(densenet.torchvision_name),
        "torchvision's files": Reference(densenet.torchvision_file_name),
    },
    efficientnet.EfficientNet: {
        "torchvision": Reference(
            efficientnet.torchvision_name, {"padding": "torch"}, convolutions=("*.fc[12].weight",)
        ),
        "timm's efficientnet_...": Reference(
            efficientnet.timm_name, TORCH, nets="efficientnet_", convolutions=("*.se.*.weight",)
        ),
        "timm's tf_efficientnet_...": Reference(
            efficientnet.timm_name, TENSORFLOW, nets="tf_efficientnet_", convolutions=("*.se.*.weight",)
        ),
        # At the net's own image size: at others it pads as at that size.
        "efficientnet_pytorch": Reference(
            efficientnet.efficientnet_pytorch_name, TENSORFLOW, convolutions=("*._se_*.weight",)
        ),
    },
}
LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


def from_torch(name: str, weights: "Mapping[str, Any] | str | os.PathLike | Weights", **fields: Any) -> dict[str, Any]:
    """The variables of model `name` with the weights of torchvision or timm, whichever the keys are of.

    Args:
      name: one of list_models().
      weights: a state dict of tensors or arrays, a .pth or .safetensors file that holds one, or that file opened.
      **fields: as in create_model, for a model that was changed in the same way. EfficientNets whose keys are timm's
        need `padding` and `epsilon`, since its tf_efficientnet_b0 and its efficientnet_b0 have the same keys.

    Returns:
      {"params": ..., "batch_stats": ... if any}, float32 NumPy arrays that share no memory with `weights`; auxiliary
      heads only if `weights` has them.

    Raises:
      UserError: no such model, no weights known for it, keys or shapes that do not fit (the message lists them), or the
        library's net computes something else than create_model(name, **fields) (the message says which fields to give).
    """
    weights = open_weights(weights)
    model = create_model(name, **fields)
    wanted, fitting = _fitting(name, model, weights.arrays.keys())
    other = {
        f: value for f, value in _own_fields(fitting, weights, fields).items() if getattr(model.backbone, f) != value
    }
    if other:
        here = {field: getattr(model.backbone, field) for field in other}
        raise UserError(
            f"the nets that these weights are of have {written(other)}, but {name!r} here has {written(here)}: give "
            f"{written(other)} both to from_torch and to create_model"
        )
    given = weights.arrays
    names = _best_names(model, wanted, given.keys())
    converted, misfits = {}, []
    for path, key in names.items():
        try:
            converted[path] = _convert(model, path, _array(given[key]), wanted[path])
        except ValueError:
            misfits.append(f"{key}: {tuple(given[key].shape)} in the file, {path} has {wanted[path]}")
    if misfits:
        raise UserError(f"these weights do not fit {name!r} with {model.classes} classes:\n" + "\n".join(misfits[:10]))
    return unflatten_dict(converted, sep="/")


def fields_of(name: str, weights: "Weights", **fields: Any) -> dict[str, Any]:
    """The backbone's fields with which `name` computes what the library of these weights does; {} if keys tell all.

    `fields` choose between nets that have the same keys.

    Raises:
      UserError: as from_torch; also if nets that compute different things have these keys and nothing says which it is.
    """
    _, fitting = _fitting(name, create_model(name, **fields), weights.arrays.keys())
    return _own_fields(fitting, weights, fields)


def has_names(model: Model) -> bool:
    """Whether other libraries can have this net. torchvision's detector has a pyramid; those on VGG-16 start from the
    classifier's weights (InitFrom)."""
    return not isinstance(model, rcnn.RegionDetector) or isinstance(model.backbone, fpn.ResNetFPN)


def _fitting(name: str, model: Model, given: Set[str]) -> tuple[dict[str, tuple[int, ...]], dict[str, Reference]]:
    """The shapes of our leaves, and the references by whose naming these are exactly the keys of `model`."""
    known = REFERENCES.get(type(model.backbone), {})
    if not known or not has_names(model):
        raise UserError(f"no other library's weights are known for {name!r}")
    wanted = leaves(model, CATALOGUE[name].input_shape)
    fitting = {
        label: reference
        for label, reference in known.items()
        if any(set(names.values()) == given for names in _choices(model, wanted, reference.naming))
    }
    if not fitting:
        names = set(_best_names(model, wanted, given).values())
        problems = [
            *_listing("not in the file", sorted(names - given)),
            *_listing(f"in the file but not in {name}", sorted(given - names)),
            *(reference.note for reference in known.values() if reference.note),
        ]
        raise UserError(
            f"these are not the weights of {name!r} as {' or '.join(known)} names them{_whose(model, given)}:\n"
            + "\n".join(problems)
        )
    return wanted, fitting


def _own_fields(fitting: dict[str, Reference], weights: "Weights", fields: dict[str, Any]) -> dict[str, Any]:
    """See `fields_of`."""
    if "backbone" in fields:  # as it was made, field by field
        return {}
    if weights.architecture:
        told = {k: each for k, each in fitting.items() if each.nets and weights.architecture.startswith(each.nets)}
        fitting = told or fitting
    agreeing = {label: each for label, each in fitting.items() if not _contradicted(each, fields)}
    if not agreeing:
        told = " or ".join(f"{label} ({written(each.fields)})" for label, each in fitting.items())
        given = {field: value for each in fitting.values() for field, value in _contradicted(each, fields).items()}
        raise UserError(
            f"these keys are those of {told}, and {written(given)} was given, with which the net computes something "
            "else; leave it out, or give the whole backbone=... if the weights are of such a net"
        )
    own = {label: each.fields for label, each in agreeing.items()}
    first, *others = own.values()
    if any(first != other for other in others):
        forms = " or ".join(f"{label} ({written(each)})" for label, each in own.items())
        say = " ".join(f"{field}={value}" for field, value in others[-1].items())
        raise UserError(
            f"these keys are those of {forms}, which compute different things: give these fields "
            f"(import-weights: --set {say}, say)"
        )
    return dict(first)


def _contradicted(reference: Reference, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that were given and that the reference's nets have otherwise."""
    return {f: fields[f] for f, value in reference.fields.items() if fields.get(f, value) != value}


def written(fields: Mapping[str, Any]) -> str:
    return ", ".join(f"{field}={value!r}" for field, value in fields.items())


def _choices(model: Model, wanted: Iterable[str], naming: Naming) -> list[dict[str, str]]:
    """{our leaf: the reference's key} with auxiliary heads and without them."""
    main = [path for path in wanted if not path.split("/")[1].startswith("aux_")]
    return [{path: torch_key(model, path, naming) for path in paths} for paths in (wanted, main)]


def _best_names(model: Model, wanted: Iterable[str], given: Set[str]) -> dict[str, str]:
    """{our leaf: the reference's key}, by the naming, with or without auxiliary heads, that fits `given` best."""
    choices = [
        names
        for reference in REFERENCES[type(model.backbone)].values()
        for names in _choices(model, wanted, reference.naming)
    ]
    return min(choices, key=lambda names: len(set(names.values()) ^ given))


def _whose(model: Model, given: Set[str]) -> str:
    """A hint for a message: the models of the same family that have exactly these keys."""
    fitting = []
    for name, other in MODELS.items():
        if type(other.backbone) is type(model.backbone) and has_names(other):
            wanted = leaves(other, CATALOGUE[name].input_shape)
            if set(_best_names(other, wanted, given).values()) == given:
                fitting.append(repr(name))
    return f" (the keys are those of {' or '.join(fitting)})" if fitting else ""


def leaves(model: Model, input_shape: tuple[int, int, int]) -> dict[str, tuple[int, ...]]:
    """{"params/backbone/conv1/kernel": shape, ...} of a model's variables, auxiliary heads included."""
    images = jax.ShapeDtypeStruct((1, *input_shape), np.float32)
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(0)}
    shapes = jax.eval_shape(lambda x: model.init(keys, x, train=False, method="outputs"), images)
    flat: dict[str, Any] = flatten_dict(shapes, sep="/")
    return {path: leaf.shape for path, leaf in flat.items()}


@dataclasses.dataclass(frozen=True)
class Weights:
    """A state dict, and what the library that wrote it calls the net, if that is known."""

    arrays: dict[str, Any]
    architecture: str | None


def open_weights(weights: Mapping[str, Any] | str | os.PathLike | Weights) -> Weights:
    """The state dict in a file or a mapping, without the wrappings that training scripts put around it.

    timm notes the net's name as "arch" in checkpoints, and as "architecture" in a config.json beside a file.

    Raises:
      UserError: the file cannot be read, or holds no state dict.
    """
    if isinstance(weights, Weights):
        return weights
    architecture = None
    if not isinstance(weights, Mapping):
        file = pathlib.Path(weights)
        weights, architecture = _read_file(file), _architecture_beside(file)
    if isinstance(weights, Mapping) and isinstance(noted := weights.get("arch"), str):
        architecture = noted
    for wrapping in ("state_dict", "model"):
        if isinstance(weights, Mapping) and isinstance(weights.get(wrapping), Mapping):
            weights = weights[wrapping]
    if not isinstance(weights, Mapping) or not all(hasattr(value, "shape") for value in weights.values()):
        raise UserError("this is no state dict: a mapping of names to tensors or arrays")
    if weights and all(key.startswith("module.") for key in weights):  # torch's DataParallel
        weights = {key.removeprefix("module."): value for key, value in weights.items()}
    arrays = {key: value for key, value in weights.items() if not key.endswith("num_batches_tracked")}
    return Weights(arrays, architecture)


def _architecture_beside(file: pathlib.Path) -> str | None:
    """What the config.json beside a file names, as in timm's repositories on the Hugging Face Hub."""
    try:
        config = json.loads((file.parent / "config.json").read_text())
    except (OSError, ValueError):
        return None
    return config.get("architecture") if isinstance(config, dict) else None


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


def torch_key(model: Model, path: str, naming: Naming) -> str:
    """The reference's key of one of our leaves."""
    _, layer = path.split("/", 1)
    layer, leaf = layer.rsplit("/", 1)
    return f"{naming(model, layer)}.{LEAVES[leaf]}"


def _convert(model: Model, path: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """One array in our layout. Raises ValueError where it does not fit."""
    if len(shape) == 4:
        array = array.transpose(2, 3, 1, 0)
    elif len(shape) == 2:
        array = array.reshape(array.shape[0], -1)  # a 1x1 convolution is a dense layer
        grid = flattened_grid(model, path)
        if grid is not None:
            array = array.reshape(len(array), -1, *grid).transpose(0, 2, 3, 1).reshape(len(array), -1)
        array = array.T
    if array.shape != shape:
        raise ValueError
    return np.array(array, order="C", copy=True)  # torch trains on in the memory that it gave


def flattened_grid(model: Model, path: str) -> tuple[int, int] | None:
    """(height, width) that was flattened into this layer's inputs, where it is the first of an FC head."""
    part, layer = path.split("/")[1:3]
    head = model.head if part == "head" else model.aux.get(part.removeprefix("aux_"))
    if isinstance(head, BoxHead) and layer == "fc6":
        return head.bins, head.bins
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
