"""The command about image files alone, which needs no net."""

import pathlib
from typing import Annotated

import tyro

from jaxcnn.commands.output import show_failures, show_lines
from jaxcnn.errors import UserError


def kernels(
    images: Annotated[tuple[pathlib.Path, ...], tyro.conf.Positional],
    /,
    out: pathlib.Path = pathlib.Path("kernels"),
    sizes: tuple[int, ...] = (2, 4, 8),
) -> int:
    """Classic 3x3 kernels and max, average and min pooling on image files, as PNG files and a page.

    Args:
      images: Image files of any common format, or folders, for all images in them and in the folders inside.
      out: The folder to write to.
      sizes: Sides of the pooling windows, in pixels.
    """
    from jaxcnn.report.kernels import show_kernels

    if not images:
        raise UserError("name at least one image file")
    page, failures = show_kernels(list(images), out, sizes)
    show_lines(*([] if page is None else [f"page {page}"]))
    return show_failures(failures)
