"""Page: self-contained HTML, readable on a phone and printable; every picture and figure is part of the file."""

import base64
import io
import os
import pathlib
from typing import Any

import jinja2
import markupsafe
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("jaxcnn.report"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def write_page(path: pathlib.Path, template: str, **values: Any) -> None:
    """Renders templates/`template` to a file, which appears whole or not at all."""
    text = TEMPLATES.get_template(template).render(**values)
    unfinished = path.with_name(f".{path.name}.tmp")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)


def svg(figure: Figure, description: str) -> markupsafe.Markup:
    """A matplotlib figure as inline SVG; `description` is what a screen reader says."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = buffer.getvalue()
    label = markupsafe.escape(description)
    return markupsafe.Markup(text[text.index("<svg") :].replace("<svg", f'<svg role="img" aria-label="{label}"', 1))


def png(image: np.ndarray, description: str, **attributes: str) -> markupsafe.Markup:
    """A uint8 image [H, W], [H, W, 1] or [H, W, 3] as an inline <img>; further attributes, such as class_, as given."""
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "PNG")
    source = base64.b64encode(buffer.getvalue()).decode()
    more = "".join(f' {name.rstrip("_")}="{markupsafe.escape(value)}"' for name, value in attributes.items())
    label = markupsafe.escape(description)
    return markupsafe.Markup(f'<img src="data:image/png;base64,{source}" alt="{label}"{more}>')
