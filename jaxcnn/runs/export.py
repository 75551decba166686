"""Export: a run's net as one file that other programs read, and weights in such a file as our variables again."""

import dataclasses
import io
import os
import pathlib
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxcnn import config
from jaxcnn.errors import UserError, did_you_mean
from jaxcnn.files import check_regular, to_json, write_bytes, write_json
from jaxcnn.models.to_torch import to_torch
from jaxcnn.ops.convolution import plain_convolutions
from jaxcnn.runs.prediction import Net, load_net
from jaxcnn.tasks.task import inputs_of

Format = Literal["safetensors", "npz", "jax", "onnx"]
OURS = "jaxcnn"
PROGRAMS = ("jax", "onnx")
PLATFORMS = ("cpu", "cuda", "tpu")
ABOUT = "jaxcnn"
"""Of the notes in a file: {"classes", "image_shape", "preprocess", "normalize", "names", "step"}, as JSON."""


@dataclasses.dataclass(frozen=True)
class Exported:
    """What was written."""

    file: pathlib.Path
    arrays: int
    parameters: int
    names: str
    """Whose names the arrays have: "jaxcnn" or another library's; "" in a program."""


def export_run(
    path: str | pathlib.Path,
    out: str | pathlib.Path,
    format: Format,
    *,
    names: str = OURS,
    checkpoint: str = "latest",
    averaged: bool = False,
    batch: int | None = None,
) -> Exported:
    """Writes the net of a run's checkpoint to a file. What is there already is replaced.

    "safetensors" and "npz" hold the weights, float32, by our paths ("params/backbone/conv1/kernel") or by the names of
    another library, with which its own net of that kind loads them. "jax" and "onnx" hold the whole program, weights
    included: from prepared images, uint8 [B, H, W, C], to what the run's task predicts; the normalization is a part of
    it. `jax.export` reads the one without this package, and its answer is an array, or of a detector a dict of them;
    the other is a graph of ONNX's operators, with the input "images" and the output "output", or one for each array of
    the dict. Each has notes: classes in label order, and how images are prepared.

    Args:
      path: a run directory.
      out: the file.
      format: what it holds.
      names: "jaxcnn", or what the name of another library begins with (to_torch).
      checkpoint: latest, best or a step.
      averaged: the average of the weights.
      batch: of a program, the number of images that it takes; None: any.

    Raises:
      UserError: as load_net and to_torch; a program was asked for with another library's names, or the net reads
        more than images, or computes what has no ONNX operator here; the package safetensors or onnx is not installed.

    Example: export_run("runs/lenet_digits", "lenet.npz", "npz")
    """
    out = pathlib.Path(out)
    if format not in get_args(Format):
        raise UserError(
            f"no format {format!r}{did_you_mean(format, get_args(Format)) or ';'} there is {get_args(Format)}"
        )
    if batch is not None and (format not in PROGRAMS or batch < 1):
        raise UserError(f"batch is {batch}; it is of a program ({' or '.join(PROGRAMS)}), and at least 1")
    if not out.parent.is_dir():
        raise UserError(f"{out}: there is no folder {out.parent}; make it first")
    if out.resolve().is_relative_to(pathlib.Path(path).resolve()):
        raise UserError(f"{out} lies in the run directory, whose files are the run's; name another place")
    net = load_net(path, checkpoint, averaged=averaged)
    about = {
        "classes": list(net.classes),
        "image_shape": list(net.data.shape(evaluated=True)),
        "preprocess": config.encode(net.data.preprocess),
        "normalize": config.encode(net.data.normalize),
        "names": names,
        "step": net.step,
    }
    count = sum(leaf.size for leaf in jax.tree.leaves(net.variables["params"]))
    if format in PROGRAMS:
        if names != OURS:
            raise UserError(f"a program has no names of {names!r}; those are of the arrays in safetensors and npz")
        function, images = _prediction(net, batch)
        if format == "onnx":
            write_bytes(out, _onnx(function, images, about))
        else:
            write_bytes(out, _program(net, function, images))
            write_json(notes_beside(out), about)
        return Exported(out, len(jax.tree.leaves(net.variables)), count, "")
    arrays = _flat(net.variables) if names == OURS else to_torch(net.experiment.model, net.variables, names)
    write_bytes(out, _safetensors(arrays, about) if format == "safetensors" else _npz(arrays, about))
    return Exported(out, len(arrays), count, names)


def read_weights(file: str | os.PathLike) -> dict[str, Any]:
    """The variables in a file that export_run wrote with our names, equal to the bit.

    Returns:
      {"params": ..., "batch_stats": ... if any}, float32 NumPy arrays.

    Raises:
      UserError: the file cannot be read, or its names are another library's (jc.from_torch reads those).

    Example: model.apply(read_weights("lenet.npz"), images, train=False)
    """
    file = pathlib.Path(file)
    try:
        check_regular(file)
        if file.suffix == ".safetensors":
            from safetensors.numpy import load_file

            arrays = load_file(file)
        elif not zipfile.is_zipfile(file):
            raise ValueError("it is no npz and no safetensors file; a program is read by jax.export")
        else:
            with np.load(file, allow_pickle=False) as found:
                arrays = {name: found[name] for name in found.files if name != ABOUT}
    except ModuleNotFoundError:
        raise UserError(f"reading {file} needs safetensors: pip install safetensors") from None
    except FileNotFoundError:
        raise UserError(f"{file}: no such file") from None
    except Exception as error:  # both raise many types on damaged files
        raise UserError(f"{file} cannot be read: {str(error).strip().splitlines()[0]}") from error
    if not any(name.startswith("params/") for name in arrays):
        raise UserError(f"{file} has no names such as params/head/fc/kernel; jc.from_torch reads other libraries'")
    return unflatten_dict(arrays, sep="/")


def notes_beside(file: pathlib.Path) -> pathlib.Path:
    """The notes of a program, which has no place for them."""
    return file.with_name(f"{file.name}.json")


def _flat(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {path: np.asarray(leaf) for path, leaf in flatten_dict(dict(variables), sep="/").items()}


def _safetensors(arrays: dict[str, np.ndarray], about: dict[str, Any]) -> bytes:
    try:
        from safetensors.numpy import save
    except ModuleNotFoundError:
        raise UserError("writing safetensors needs the package: pip install safetensors; npz needs none") from None
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    return save(arrays, metadata={"format": "pt" if about["names"] != OURS else "np", ABOUT: to_json(about)})


def _npz(arrays: dict[str, np.ndarray], about: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    named: dict[str, Any] = {ABOUT: np.array(to_json(about)), **arrays}
    np.savez(file, **named)
    return file.getvalue()


def _prediction(net: Net, batch: int | None) -> tuple[Callable[[jax.Array], Any], jax.ShapeDtypeStruct]:
    """What a program computes, its weights as constants, and of what: prepared images."""
    from jax import export

    task, model, normalize = net.experiment.task, net.experiment.model, net.data.normalize
    if needed := inputs_of(task):
        raise UserError(f"this run's net reads {' and '.join(needed)} beside an image; export its weights instead")
    variables = jax.device_get(net.variables)
    size = (batch,) if batch is not None else export.symbolic_shape("b")
    images = jax.ShapeDtypeStruct((*size, *net.data.shape(evaluated=True)), np.uint8)
    return lambda images: _plain(task.predict(model, variables, normalize(images))), images


REFUSED = (TypeError, ValueError, NotImplementedError, jax.errors.JAXTypeError)
"""By JAX, where a net cannot be traced for any number of images."""


def _refusal(error: Exception, images: jax.ShapeDtypeStruct) -> UserError:
    hint = "" if isinstance(images.shape[0], int) else "; say for how many images with --batch"
    return UserError(f"this net's program cannot be written ({str(error).splitlines()[0]}){hint}")


def _program(net: Net, function: Callable[[jax.Array], Any], images: jax.ShapeDtypeStruct) -> bytes:
    """StableHLO for every platform."""
    from jax import export

    with jax.default_matmul_precision(net.experiment.precision), plain_convolutions():
        try:
            return bytes(export.export(jax.jit(function), platforms=PLATFORMS)(images).serialize())
        except REFUSED as error:
            raise _refusal(error, images) from error


def _onnx(function: Callable[[jax.Array], Any], images: jax.ShapeDtypeStruct, about: dict[str, Any]) -> bytes:
    try:
        from jaxcnn.runs.onnx_graph import onnx_model
    except ModuleNotFoundError:
        raise UserError("writing ONNX needs the package: pip install onnx") from None
    try:
        return onnx_model(function, images, {ABOUT: to_json(about)}).SerializeToString()
    except REFUSED as error:
        raise _refusal(error, images) from error


def _plain(predicted: Any) -> Any:
    """Containers that a reader without this package knows."""
    if isinstance(predicted, tuple) and hasattr(predicted, "_asdict"):
        return predicted._asdict()  # pyright: ignore[reportAttributeAccessIssue]
    if dataclasses.is_dataclass(predicted):
        return {field.name: getattr(predicted, field.name) for field in dataclasses.fields(predicted)}
    return predicted
