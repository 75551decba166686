"""Predicted: the pictures of what a net says about images, as PNG files."""

import pathlib
from collections.abc import Sequence

from jaxcnn.report.page import make_folder, own_names, save_png
from jaxcnn.runs.prediction import Prediction
from jaxcnn.runs.start import PICTURES

__all__ = ["PICTURES", "save_pictures"]


def save_pictures(predictions: Sequence[Prediction], folder: pathlib.Path) -> list[str]:
    """Writes each picture as IMAGE_NAME.png and returns a line for each. Raises UserError if it cannot be written."""
    make_folder(folder)
    lines = []
    names = own_names([pathlib.Path(prediction.image) for prediction in predictions])
    for name, prediction in zip(names, predictions, strict=True):
        for kind, picture in prediction.answer.pictures.items():
            file = folder / f"{name}_{kind}.png"
            save_png(file, picture)
            lines.append(f"picture {file}")
    return lines
