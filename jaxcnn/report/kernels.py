"""Kernels: what classic kernels and poolings do to photos, as pictures and one page: `jaxcnn kernels`."""

import pathlib

import numpy as np
from PIL import Image

from jaxcnn.explain import overlay
from jaxcnn.explain.kernels import KERNELS, apply_kernel, poolings
from jaxcnn.report.page import make_folder, own_names, png, save_png, write_page
from jaxcnn.train.predict import decode_file

LONGEST = 512
"""Pixels; a larger photo is shrunk before, since on a page nobody would see what a 3x3 kernel does to it."""


def show_kernels(images: list[pathlib.Path], out: pathlib.Path, sizes: tuple[int, ...]) -> pathlib.Path:
    """Writes kernels.html and its pictures as PNG files to `out`; returns the page's path.

    Args:
      images: image files.
      out: the folder.
      sizes: sides of the pooling windows, in pixels; each pooled picture is enlarged to the photo's size again.

    Raises:
      UserError: an image cannot be read or is smaller than a window; the folder cannot be written.
    """
    make_folder(out)
    photos = []
    for name, path in own_names(images):
        photo = _shrunk(decode_file(path, 3))
        rows = [(kernel, apply_kernel(photo, weights), weights) for kernel, weights in KERNELS.items()]
        pooled = {size: poolings(photo, size) for size in sizes}
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
    page = out / "kernels.html"
    write_page(page, "kernels.html", title="Classic kernels and poolings", photos=photos)
    return page


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
