"""Page: self-contained HTML, readable on a phone and printable; every picture and figure is part of the file."""

import base64
import io
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jinja2
import markupsafe
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from jaxcnn import files
from jaxcnn.errors import UserError
from jaxcnn.text import plain

TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("jaxcnn.report"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)

LONGEST_NAME = 120
"""Bytes: file systems allow 255, and a picture's name says the method, the endpoint and the class too."""


def write_page(path: pathlib.Path, template: str, **values: Any) -> None:
    """Renders templates/`template` to a file, which appears whole or not at all. Raises UserError where it cannot."""
    text = whole(TEMPLATES.get_template(template).render(**values))
    try:
        files.write_text(path, text)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error}") from error


def whole(text: str) -> str:
    """The text with U+FFFD for the bytes of file and class names that are not UTF-8, which no page can hold."""
    return re.sub("[\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", text)


def svg(figure: Figure, description: str) -> markupsafe.Markup:
    """A matplotlib figure as inline SVG; `description` is what a screen reader says."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = buffer.getvalue()
    label = markupsafe.escape(description)
    return markupsafe.Markup(text[text.index("<svg") :].replace("<svg", f'<svg role="img" aria-label="{label}"', 1))


def png(image: np.ndarray, description: str, **attributes: str) -> markupsafe.Markup:
    """A uint8 image [H, W], [H, W, 1] or [H, W, 3] as an inline <img>; further attributes, such as class_, as given."""
    return _inline(image, "png", description, attributes)


def jpeg(image: np.ndarray, description: str) -> markupsafe.Markup:
    """The same as a JPEG, which has a fifth of the size if it is a photo."""
    return _inline(image, "jpeg", description, {}, quality=85)


def _inline(
    image: np.ndarray, form: str, description: str, attributes: Mapping[str, str], **saved: Any
) -> markupsafe.Markup:
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, form, **saved)
    source = base64.b64encode(buffer.getvalue()).decode()
    more = "".join(f' {name.rstrip("_")}="{markupsafe.escape(value)}"' for name, value in attributes.items())
    label = markupsafe.escape(description)
    return markupsafe.Markup(f'<img src="data:image/{form};base64,{source}" alt="{label}"{more}>')


def make_folder(out: pathlib.Path) -> None:
    """The folder of a page and its pictures. Raises UserError where it cannot be made."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error}; choose another --out") from error


def save_png(out: pathlib.Path, name: str, picture: np.ndarray) -> str:
    """Writes a uint8 picture [H, W, 3] beside a page; returns the file's name. Raises UserError where it cannot."""
    file = f"{name}.png"
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    try:
        files.write_bytes(out / file, buffer.getvalue())
    except OSError as error:
        raise UserError(f"{out / file} cannot be written: {error}; choose another --out") from error
    return file


def own_names(images: Iterable[pathlib.Path]) -> list[tuple[str, pathlib.Path]]:
    """A name of its own for each image file, its stem where that is free: plain text that a file name can begin with
    and a page can hold, of at most LONGEST_NAME bytes and a number."""
    names: dict[str, pathlib.Path] = {}
    for path in images:
        stem = plain(path.stem).encode()[:LONGEST_NAME].decode(errors="ignore")
        name, number = stem, 2
        while name in names:
            name, number = f"{stem}_{number}", number + 1
        names[name] = path
    return list(names.items())


def as_file_name(name: str) -> str:
    """A class or an endpoint as a part of a file name: letters, digits, "_", "." and "-", at most 40 of them."""
    return re.sub(r"[^\w.-]+", "-", name)[:40]


def save_pictures(pictures: Sequence[tuple[pathlib.Path, Mapping[str, np.ndarray]]], out: pathlib.Path) -> list[str]:
    """Writes the pictures of each image as IMAGE_KIND.png; returns a line for each. Raises UserError as save_png."""
    make_folder(out)
    lines = []
    for (name, _), (_, kinds) in zip(own_names(path for path, _ in pictures), pictures, strict=True):
        lines += [f"picture {out / save_png(out, f'{name}_{kind}', picture)}" for kind, picture in kinds.items()]
    return lines
