"""Kernels: what classic kernels and poolings do to photos, as pictures and one page: `jaxcnn kernels`."""

import pathlib

import numpy as np
from PIL import Image

from jaxcnn.errors import UserError
from jaxcnn.explain import overlay
from jaxcnn.explain.kernels import KERNELS, apply_kernel, poolings
from jaxcnn.report.page import make_folder, own_names, png, save_png, write_page
from jaxcnn.runs.prediction import decode_file, listed

LONGEST = 512
"""Pixels; a larger photo is shrunk before, since on a page nobody would see what a 3x3 kernel does to it."""


def show_kernels(
    images: list[pathlib.Path], out: pathlib.Path, sizes: tuple[int, ...]
) -> tuple[pathlib.Path | None, list[str]]:
    """Writes kernels.html and its pictures as PNG files to `out`; returns the page's path, None if no image could be
    shown, and why the other images could not.

    Args:
      images: image files, or folders as in `listed`.
      out: the folder.
      sizes: sides of the pooling windows, in pixels; each pooled picture is enlarged to the photo's size again.

    Raises:
      UserError: a folder has no images, or `out` cannot be written.
    """
    files = listed(images)
    make_folder(out)
    photos, failures = [], []
    for name, path in own_names(files):
        try:
            photo = _shrunk(decode_file(path, 3))
            rows = [(kernel, apply_kernel(photo, weights), weights) for kernel, weights in KERNELS.items()]
            pooled = {size: poolings(photo, size) for size in sizes}
        except UserError as error:
            failures.append(str(error))
            continue
        photos.append(
            {
                "name": name,
                "image": png(photo, name),
                "size": f"{photo.shape[0]}x{photo.shape[1]}",
                "kernels": [
                    (
                        kernel,
                        png(picture, kernel),
                        weights,
                        save_png(out, f"{name}_{kernel.replace(' ', '-')}", picture),
                    )
                    for kernel, picture, weights in rows
                ],
                "poolings": [
                    (
                        size,
                        [
                            _pooled(out, f"{name}_{kind}-pool-{size}", kind, size, small)
                            for kind, small in kinds.items()
                        ],
                    )
                    for size, kinds in pooled.items()
                ],
            }
        )
    if not photos:
        return None, failures
    page = out / "kernels.html"
    write_page(page, "kernels.html", title="Classic kernels and poolings", photos=photos)
    return page, failures


def _pooled(out: pathlib.Path, name: str, kind: str, size: int, small: np.ndarray) -> tuple[str, str, str, str]:
    """(kind, picture, what it shrank to, file)."""
    picture = overlay.enlarge(small, size)
    shown = png(picture, f"{kind} pooling of {size}x{size}", class_="pixels")
    return kind, shown, f"{small.shape[0]}x{small.shape[1]}", save_png(out, name, picture)


def _shrunk(photo: np.ndarray) -> np.ndarray:
    if max(photo.shape[:2]) <= LONGEST:
        return photo
    image = Image.fromarray(photo)
    image.thumbnail((LONGEST, LONGEST))
    return np.asarray(image)
