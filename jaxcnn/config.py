"""Config: a tree of dataclasses as JSON and back, and the differences between two of them.

Classes of jaxcnn go by their public names, "jaxcnn:SGD" (jaxcnn/__init__.py), so that files can move and runs stay
readable. Format 0, before there was a number, named modules: `upgraded` reads it.
"""

import contextlib
import dataclasses
import functools
import importlib
import operator
import re
import sys
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

import jaxcnn
from jaxcnn.errors import UserError

FORMAT = 1
"""Of config.json, under the key "format"."""

# Where and how a run computes, but not what: these may change between its starts (docs/design.md says why each may).
RUN_ONLY = (
    *("data.data_dir", "data.workers", "data.memory_limit", "data.device_limit", "data.evaluation_batch_size"),
    *("parallel.data", "parallel.fsdp", "parallel.shard_above", "rematerialize", "xla_flags", "skip_bad_steps"),
    *("steps_per_call", "tensorboard"),
)

LONGEST_NAME = 300
"""Characters of a class's name."""

# Of sources whose versions are digests of their files.
FOLDER_FIELDS = {
    "jaxcnn:COCODetection": ("images", "annotations"),
    "jaxcnn:ComposedCutouts": ("path",),
    "jaxcnn:Folder": ("path",),
    "jaxcnn:LabelTable": ("file", "images"),
    "jaxcnn:PairedFolders": ("images", "masks"),
    "jaxcnn:VOCDetection": ("path",),
    "jaxcnn:VOCSegmentation": ("path",),
    "jaxcnn:WithProposals": ("file",),
}

# What was called so in the config of an older run, and is called otherwise now: fields' values, and classes.
RENAMED = {("kernel_init", "he_normal"): "he_fan_out"}
RENAMED_CLASSES = {
    "jaxcnn.models.googlenet:AuxiliaryHead": "GoogLeNetAuxiliaryHead",
    "jaxcnn.models.inception_v3:AuxiliaryHead": "InceptionV3AuxiliaryHead",
}


def encode(value: Any, path: str = "") -> Any:
    """A dataclass (a Linen module too) -> {"class": "jaxcnn:Name", field: ...}; tuples -> lists; dtypes -> names.

    A class that is not jaxcnn's is named "module:Name".

    Raises:
      UserError: a field holds something else, such as a function; the message names the field.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        skip = {"parent", "name"} if isinstance(value, nn.Module) else set()
        held = [field for field in dataclasses.fields(value) if field.init and field.metadata.get("stored", True)]
        fields = [field.name for field in held if field.name not in skip]
        cls = type(value)
        if "<locals>" in cls.__qualname__:
            raise UserError(f"{path}: {cls.__name__} is defined in a function, where config.json cannot find it again")
        return {"class": class_name(cls)} | {
            name: encode(getattr(value, name), f"{path}.{name}" if path else name) for name in fields
        }
    if isinstance(value, tuple | list):
        return [encode(item, f"{path}.{i}") for i, item in enumerate(value)]
    if isinstance(value, Mapping):
        return {str(key): encode(item, f"{path}.{key}") for key, item in value.items()}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, type | np.dtype):
        try:
            return jnp.dtype(value).name
        except TypeError:
            pass
    raise UserError(
        f"{path}: {value!r} cannot be stored in config.json; experiments are made of dataclasses, numbers, strings "
        "and tuples (for a function, use the name that the field's type lists)"
    )


def class_name(cls: type) -> str:
    """The public name, "jaxcnn:SGD"; "module:Name" of a class that jaxcnn does not export."""
    if cls.__module__.startswith("jaxcnn.") and getattr(jaxcnn, cls.__qualname__, None) is cls:
        return f"jaxcnn:{cls.__qualname__}"
    return f"{cls.__module__}:{cls.__qualname__}"


def upgraded(stored: dict[str, Any]) -> dict[str, Any]:
    """A config that was read from a file, in today's format: a run keeps its meaning when names and files change.

    Raises:
      UserError: it is of a format that is newer than this jaxcnn.
    """
    number = stored.get("format", 0)
    if not isinstance(number, int) or number > FORMAT:
        raise UserError(
            f"config.json has format {number!r} and this jaxcnn reads formats up to {FORMAT}: the run is of a newer one"
        )
    now = {field: _upgraded(field, value) for field, value in stored.items() if field != "format"}
    if "loss" in now and "task" not in now:  # the loss was a field of the experiment
        criterion = dict(now.pop("loss"))
        auxiliary = {"auxiliary_weight": criterion.pop("auxiliary_weight")} if "auxiliary_weight" in criterion else {}
        now["task"] = {"class": "jaxcnn:Classification", "criterion": criterion, **auxiliary}
    return now


def upgraded_flat(stored: dict[str, Any]) -> dict[str, Any]:
    """The same of a flattened config, `flatten`, which may be a part of one."""
    renamed = {"loss.auxiliary_weight": "task.auxiliary_weight"}
    return {
        renamed.get(path, re.sub(r"^loss\.", "task.criterion.", path)): _upgraded(path.rpartition(".")[2], value)
        for path, value in stored.items()
    }


def _upgraded(field: str, value: Any) -> Any:
    if isinstance(value, list):
        return [_upgraded("", item) for item in value]
    if isinstance(value, dict):
        return {name: _upgraded(name, item) for name, item in value.items()}
    if not isinstance(value, str):
        return value
    if field == "class" and re.fullmatch(r"jaxcnn(\.\w+)+:\w+", value):
        name = RENAMED_CLASSES.get(value, value.partition(":")[2])
        return f"jaxcnn:{name}" if name in jaxcnn.__all__ else value
    return RENAMED.get((field, value), value)


def classes(encoded: Any) -> set[str]:
    """Every class that an encoded config names, "module:Name"."""
    if isinstance(encoded, list):
        return set().union(*map(classes, encoded))
    if not isinstance(encoded, dict):
        return set()
    own = {_short(str(encoded["class"]))} if "class" in encoded else set()
    return own.union(*(classes(item) for name, item in encoded.items() if name != "class"))


def _short(name: str) -> str:
    """The name of a class. Raises UserError for one that is longer than any: import would go down its every dot."""
    if len(name) > LONGEST_NAME:
        raise UserError(f"config.json: {name[:40]}..., of {len(name):,} characters, is not the name of a class")
    return name


def foreign(encoded: Any) -> set[str]:
    """The classes that an encoded config names and that are neither jaxcnn's nor layers of Flax."""
    return {name for name in classes(encoded) if not re.fullmatch(r"(jaxcnn|flax\.linen)(\.\w+)*:\w+", name)}


def decode(encoded: Any, *, trusted: bool = False) -> Any:
    """The inverse of `encode`.

    Only dataclasses, Linen modules among them, are built, each in the module that defines it; nothing else is called,
    and of other modules than jaxcnn's and Flax's nothing is imported unless `trusted`. All names are looked at before.

    Raises:
      UserError: a class is not there any more, has other fields, or is none that may be built.
    """
    strange = sorted(foreign(encoded))
    if strange and not trusted:
        raise UserError(f"config.json: {strange[0]} is not a class of jaxcnn")
    return _build(encoded, {name: _find(name) for name in sorted(classes(encoded))})


def _find(name: str) -> type:
    """The class of this name. Raises UserError if it is not a dataclass that its module defines."""
    if not re.fullmatch(r"\w+(\.\w+)*:\w+(\.\w+)*", name):
        raise UserError(f"config.json: {name!r} is not the name of a class")
    module, _, path = name.partition(":")
    try:
        found: Any = sys.modules.get(module) or importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise UserError(f"config.json: {name} cannot be rebuilt: {error}") from error
    home = getattr(found, "__module__", None)
    home = "jaxcnn" if module == "jaxcnn" and str(home).startswith("jaxcnn.") else home  # its public name
    if not (isinstance(found, type) and dataclasses.is_dataclass(found) and home == module):
        raise UserError(f"config.json: {name} cannot be rebuilt: it is not a dataclass of that module")
    return found


def _build(value: Any, found: dict[str, type]) -> Any:
    if isinstance(value, list):
        return tuple(_build(item, found) for item in value)
    if not isinstance(value, dict):
        return value
    fields = {name: _build(item, found) for name, item in value.items() if name != "class"}
    if "class" not in value:
        return fields
    try:
        return found[str(value["class"])](**fields)
    except (TypeError, ValueError) as error:
        raise UserError(f"config.json: {value['class']} cannot be rebuilt: {error}") from error


def flatten(encoded: Any, path: str = "") -> dict[str, Any]:
    """{"optimizer.learning_rate": 0.1, ...} of an encoded config."""
    if isinstance(encoded, dict):
        items = list(encoded.items())
    elif isinstance(encoded, list) and any(isinstance(item, dict | list) for item in encoded):
        items = list(enumerate(encoded))
    else:
        return {path: encoded}
    flat: dict[str, Any] = {}
    for name, item in items:
        flat |= flatten(item, f"{path}.{name}" if path else str(name))
    return flat


def identity(encoded: Any) -> dict[str, Any]:
    """An encoded config, flattened, without what may change between the starts of one run."""
    return {path: value for path, value in flatten(encoded).items() if path not in run_only_fields(encoded)}


def run_only_fields(encoded: Any) -> tuple[str, ...]:
    """RUN_ONLY, and where the images of a source lie that are compared by their names and sizes (plan.dataset)."""
    return (*RUN_ONLY, *(f"data.source.{field}" for field in folder_fields(encoded)))


def folder_fields(encoded: Any) -> tuple[str, ...]:
    """The fields of an encoded config's source that say where its files lie, and nothing of what they are."""
    source = encoded.get("data", {}).get("source", {}) if isinstance(encoded, dict) else {}
    within = source.get("source")  # of a source that adds something to another
    inner = folder_fields({"data": {"source": within}}) if isinstance(within, dict) else ()
    return (*FOLDER_FIELDS.get(source.get("class", ""), ()), *(f"source.{field}" for field in inner))


def set_data_paths(encoded: Any, values: dict[str, Any]) -> None:
    """Puts the paths of the data among `values`, {"data.data_dir": ...}, into an encoded config."""
    data = encoded.get("data", {})
    for path in ("data.data_dir", *(f"data.source.{field}" for field in folder_fields(encoded))):
        if path in values and path in run_only_fields(encoded):
            *way, field = path.split(".")[1:]
            functools.reduce(operator.getitem, way, data)[field] = values[path]


def changes(old: Any, new: Any) -> dict[str, tuple[Any, Any]]:
    """The differences of two encoded configs that are not allowed between the starts of one run."""
    both = set(run_only_fields(old)) & set(run_only_fields(new))
    old, new = _with_new_parts(old), _with_new_parts(new)
    return {path: values for path, values in differences(old, new).items() if path not in both}


def _with_new_parts(stored: Any) -> Any:
    """A config with the parts that its classes did not have when it was stored, such as a source's rules for boxes,
    as they are by default: a run of before goes on. Of single values only those that are off, None, (), 0 and False,
    are taken for what was not there."""
    if isinstance(stored, list):
        return [_with_new_parts(item) for item in stored]
    if not isinstance(stored, dict):
        return stored
    filled = {name: _with_new_parts(item) for name, item in stored.items()}
    if "class" not in stored or foreign({"class": stored["class"]}):
        return filled
    with contextlib.suppress(UserError):  # a class that is gone is refused where it is built
        for field in dataclasses.fields(_find(stored["class"])):
            default: Any = field.default
            part = dataclasses.is_dataclass(default) and not isinstance(default, type)
            if field.name not in filled and (part or default in ((), 0)):
                filled[field.name] = encode(default)
    return filled


def differences(old: Any, new: Any) -> dict[str, tuple[Any, Any]]:
    """{path: (old, new)} of two encoded configs; a value that one of them lacks is None there."""
    old, new = flatten(old), flatten(new)
    return {
        path: (old.get(path), new.get(path))
        for path in sorted(old.keys() | new.keys())
        if old.get(path) != new.get(path)
    }
