"""Explanation: what a saved net sees, as pictures and one page: `jaxcnn explain`."""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import markupsafe
import numpy as np
from matplotlib.figure import Figure

from jaxcnn.data import imagenet
from jaxcnn.errors import UserError
from jaxcnn.explain import filters, overlay
from jaxcnn.explain.boxes import box_of
from jaxcnn.explain.cam import cam, check_endpoint, gradcam, upsample
from jaxcnn.explain.deletion import Curve, deletion, insertion
from jaxcnn.explain.occlusion import occlusion
from jaxcnn.explain.receptive import SHARE, receptive_field
from jaxcnn.ops.boxes import paired_iou
from jaxcnn.report.page import as_file_name, make_folder, own_names, png, save_png, svg, write_page
from jaxcnn.report.target import target_of
from jaxcnn.runs.prediction import Net, decode_file, listed, load_net, prepare
from jaxcnn.tasks.task import Answer
from jaxcnn.text import plain

Method = Literal["prediction", "cam", "gradcam", "occlusion", "features", "receptive-field", "filters", "templates"]
MAPS = ("cam", "gradcam", "occlusion")
OF_THE_NET = ("filters", "templates")
"""Methods that need no image."""
OF_AN_ENDPOINT = ("gradcam", "features", "receptive-field")
"""Methods that look at the map that --endpoint names."""
TITLES = {
    "prediction": "Predictions",
    "cam": "Class activation maps",
    "gradcam": "Grad-CAM",
    "occlusion": "Occlusion",
    "features": "Feature maps",
    "receptive-field": "Receptive fields",
    "filters": "First-layer filters",
    "templates": "Templates",
}
SOURCES = {
    "prediction": "What the net says of each image, as its task draws it.",
    "cam": "The final map weighted by the class's row of the last layer (Zhou et al. 2016). What is not above 0 is not "
    "drawn.",
    "gradcam": "The maps of an endpoint weighted by the mean gradient of the class's logit, cut off at 0 (Selvaraju et "
    "al. 2017); of a segmenter, of its logits at the pixels that it gives to the class (Vinogradova et al. 2020).",
    "occlusion": "How much the class's probability falls when a square of the image's mean colour hides it (Zeiler & "
    "Fergus 2014, section 4.2).",
    "features": "What the channels of an endpoint answer to the image, each from dark (its least value) to bright.",
    "receptive-field": "The box is what a position can see, counted from the net's layers; the colours are "
    "the square root of that position's absolute gradient with respect to the image (Luo et al. 2016).",
    "filters": "The weights of the first layer. One channel: blue is negative, white 0, red positive. Three channels: "
    "a colour around grey.",
    "templates": "The weights of a linear net, one image per class: blue speaks against the class, red for it.",
}
SCORES = (
    "Deletion (lower is better) and insertion (higher is better) are the areas under the class's probability while "
    "pixels are taken away, or shown, in the order of the map (Petsiuk et al. 2018)."
)
TILES = 64
"""At most so many tiles of one grid."""


@dataclasses.dataclass(frozen=True)
class Picture:
    """One picture of the page, and the PNG file that holds it too, where there is one."""

    image: markupsafe.Markup
    caption: str
    file: str = ""


@dataclasses.dataclass
class Section:
    """What the page says of one image, or of the net."""

    title: str
    pictures: list[Picture] = dataclasses.field(default_factory=list)
    lines: list[str] = dataclasses.field(default_factory=list)
    answer: Answer | None = None
    curves: markupsafe.Markup | None = None


@dataclasses.dataclass(frozen=True)
class Question:
    """What is asked of every image."""

    method: Method
    chosen: str | None = None
    """A class by name or index; None: the predicted one."""
    endpoint: str = "final"
    box: tuple[float, ...] | None = None
    """(left, top, right, bottom) of the object, in pixels of the image file."""

    @property
    def page(self) -> str:
        """The name of the page: another endpoint or class makes another page."""
        endpoint = self.endpoint if self.method in OF_AN_ENDPOINT and self.endpoint != "final" else None
        chosen = self.chosen if self.method in MAPS else None
        return "_".join([self.method, *(as_file_name(part) for part in (endpoint, chosen) if part)]) + ".html"


class _NotShown(UserError):
    """One image cannot be explained; the others can."""


def explain_run(
    run: pathlib.Path,
    images: list[pathlib.Path],
    question: Question,
    out: pathlib.Path | None = None,
    *,
    checkpoint: str = "latest",
    averaged: bool = False,
) -> tuple[list[str], list[str]]:
    """Writes a page and its pictures as PNG files to `out`, default RUN/explain.

    Returns:
      Lines that say what was written, and why images are missing that could not be read, do not get the size that the
      net takes, or whose map is not finite. If all are missing, there is no page.

    Raises:
      UserError: as load_net and listed; the model has no such endpoint or class, or does not allow the method; a box
        has no part in the image; `out` cannot be written.
    """
    if question.method not in OF_THE_NET and not images:
        raise UserError(f"--method {question.method} needs at least one image file")
    files = listed(images)
    if question.box is not None:
        _check_box(question.method, question.box, files)
    net = load_net(run, checkpoint, averaged=averaged)
    out = out or run / "explain"
    draw = _Draw(net, question, out)
    make_folder(out)
    name = plain(run.absolute().name)
    sections, failures = [], []
    if question.method in OF_THE_NET:
        sections.append(draw.net_itself(name))
    else:
        for stem, path in own_names(files):
            try:
                sections.append(draw.photo(stem, path))
            except _NotShown as error:
                failures.append(str(error))
    if not sections:
        return [], failures
    page = out / question.page
    write_page(
        page,
        "explanation.html",
        title=f"{TITLES[question.method]} of {name}",
        source=SOURCES[question.method],
        scores=SCORES if question.method in MAPS else "",
        weights=f"{run}, step {net.step:,}{', averaged weights' if averaged else ''}",
        sections=sections,
    )
    return [*(f"{section.title}: {line}" for section in sections for line in section.lines), f"page {page}"], failures


class _Draw:
    """Draws the sections of one page. Raises UserError where the net has no such class or endpoint."""

    def __init__(self, net: Net, question: Question, out: pathlib.Path):
        self.net, self.question, self.out = net, question, out
        self.model = net.experiment.model
        self.normalize = net.data.normalize
        self.chosen = net.index(question.chosen) if question.method in MAPS and question.chosen is not None else None
        if question.method in OF_AN_ENDPOINT:
            image = jax.ShapeDtypeStruct((1, *net.data.shape(evaluated=True)), np.float32)
            check_endpoint(self.model, image, question.endpoint)

    def net_itself(self, name: str) -> Section:
        model, shape = self.model, self.net.data.image_shape
        if self.question.method == "templates":
            weights = filters.templates(model, self.net.variables, shape)
            captions = [imagenet.described(label) for label in self.net.classes]
            section = Section(name, lines=[f"{len(weights)} templates of {shape[0]}x{shape[1]}x{shape[2]}"])
            largest = float(np.abs(weights).max())  # one scale for all, so that classes can be compared
        else:
            layer, weights = filters.first_filters(model, self.net.variables, shape)
            count, (height, width, channels) = len(weights), weights.shape[1:]
            section = Section(name, lines=[f"{count:,} filters of {height}x{width}x{channels} in {layer}"])
            weights = weights[_strongest(np.abs(weights).mean((1, 2, 3)))]
            if len(weights) < count:
                section.lines.append(f"shown are the {len(weights)} with the largest weights")
            captions, largest = [], None
        tiles = [overlay.weights_image(weight, largest) for weight in weights]
        side = max(32, min(96, 640 // math.isqrt(len(tiles))))  # few are drawn large, many in a picture of 640 pixels
        tiles = [overlay.enlarge(tile, overlay.zoom(max(tile.shape[:2]), side)) for tile in tiles]
        file = save_png(self.out, self.question.method, overlay.grid(tiles))
        if captions:
            pictures = zip(tiles, captions, strict=True)
            section.pictures = [Picture(png(tile, text, class_="pixels"), text) for tile, text in pictures]
            section.lines.append(f"all of them in {file}, row by row")
        else:
            section.pictures = [self._picture(overlay.grid(tiles), "First-layer filters", file)]
        return section

    def photo(self, name: str, path: pathlib.Path) -> Section:
        data = self.net.data
        try:
            source = decode_file(path, data.image_shape[2])
            pixels = prepare(source, data, path)
        except UserError as error:
            raise _NotShown(str(error)) from error
        section = Section(name, answer=self.net.answer(pixels))
        factor = overlay.zoom(min(pixels.shape[:2]))
        large = overlay.rgb(overlay.enlarge(pixels, factor))
        section.pictures.append(Picture(png(large, f"{name}, as the net sees it"), "as the net sees it"))
        section.pictures.append(self._normalized(name, pixels, factor))
        if self.question.method in MAPS:
            self._map(section, pixels, large, self._known_box(source, path))
        elif self.question.method == "prediction":
            self._prediction(section, factor)
        elif self.question.method == "features":
            self._features(section, pixels)
        else:
            self._receptive_field(section, pixels, large)
        return section

    def _prediction(self, section: Section, factor: int) -> None:
        assert section.answer is not None
        section.lines += [f"{name} {value}" for name, value in section.answer.rows]
        for kind, picture in section.answer.pictures.items():
            large = overlay.rgb(overlay.enlarge(picture if picture.ndim == 3 else picture[..., None], factor))
            section.pictures.append(self._picture(large, kind, save_png(self.out, f"{section.title}_{kind}", picture)))

    def _normalized(self, name: str, pixels: np.ndarray, factor: int) -> Picture:
        """The numbers that enter the first layer, in which an image that is darker or lighter than those of the
        training stands out: dark ink on paper, for a net that knows light ink on a dark ground."""
        numbers = np.asarray(self.normalize(jnp.asarray(pixels)[None])[0], np.float32)
        picture = overlay.enlarge(overlay.rgb(overlay.signed_image(numbers)), factor)
        low, mean, high = numbers.min(), numbers.mean(), numbers.max()
        caption = f"normalized: {low:.2f} to {high:.2f}, mean {mean:.2f}; middle gray is 0"
        return Picture(png(picture, f"{name}, normalized"), caption)

    def _map(self, section: Section, pixels: np.ndarray, large: np.ndarray, known: np.ndarray | None) -> None:
        """A map of one class over the image, with its box and scores."""
        target = target_of(self.net, pixels, self.chosen)
        label, probability = target.label, target.probability
        section.lines.append(target.line)
        floats = pixels.astype(np.float32)
        heat = self._heat(floats, target.index, probability)
        if not np.isfinite(heat).all():
            raise _NotShown(f"{section.title}: the map is not finite; the run's weights may have diverged")
        factor = len(large) // len(pixels)
        shown = np.asarray(upsample(jnp.asarray(heat)[None], large.shape[:2])[0])
        picture, box = overlay.overlay(large, shown), box_of(heat)
        if known is not None:
            picture = overlay.draw_box(picture, factor * known, overlay.GIVEN)
        if box is None:
            where = "" if self.question.method == "occlusion" else f" at {self.question.endpoint!r}"
            section.lines.append(f"the map is nowhere above 0: nothing{where} speaks for {label}; no box, no scores")
        else:
            picture = overlay.draw_box(picture, factor * box, overlay.FOUND)
            edges = ",".join(f"{edge:.0f}" for edge in box)
            section.lines.append(f"localisation box {edges} (left, top, right, bottom in the prepared image)")
            curves = {
                "deletion": deletion(probability, floats, heat),
                "insertion": insertion(probability, floats, heat),
            }
            section.lines.append("  ".join(f"{name} {curve.area:.3f}" for name, curve in curves.items()))
            section.curves = _plot(curves, label)
        if known is not None:
            overlap = 0.0 if box is None else float(paired_iou(box, known))
            section.lines.append(f"IoU with the given box {overlap:.3f}")
        kind = self.question.method + (f"_{self.question.endpoint}" if self.question.method in OF_AN_ENDPOINT else "")
        file = save_png(
            self.out, f"{section.title}_{kind}_{target.index}-{as_file_name(self.net.classes[target.index])}", picture
        )
        section.pictures.append(self._picture(picture, f"{TITLES[self.question.method]}: {label}", file))

    def _heat(self, floats: np.ndarray, target: int, probability: Any) -> np.ndarray:
        """The map at the image's size, [H, W]."""
        if self.question.method == "occlusion":
            return occlusion(probability, floats)
        with jax.default_matmul_precision(self.net.experiment.precision):
            maps = self._cam(self.net.variables, self.normalize(jnp.asarray(floats)[None]), jnp.array([target]))
        return np.asarray(upsample(maps, floats.shape[:2])[0])

    @functools.cached_property
    def _cam(self) -> Callable[[Any, jax.Array, jax.Array], jax.Array]:
        if self.question.method == "cam":
            return jax.jit(functools.partial(cam, self.model))
        return jax.jit(functools.partial(gradcam, self.model, endpoint=self.question.endpoint))

    def _features(self, section: Section, pixels: np.ndarray) -> None:
        images = self.normalize(jnp.asarray(pixels)[None])
        maps = np.asarray(filters.feature_maps(self.model, self.net.variables, images, self.question.endpoint)[0])
        height, width, channels = maps.shape
        chosen = _strongest(np.abs(maps).mean((0, 1)))
        section.lines.append(f"{self.question.endpoint}: {channels:,} maps of {height}x{width}")
        if len(chosen) < channels:
            section.lines.append(f"shown are the {len(chosen)} with the largest mean absolute value")
        factor = overlay.zoom(max(height, width), 64)
        picture = overlay.grid([overlay.enlarge(overlay.map_image(maps[..., i]), factor) for i in chosen])
        file = save_png(self.out, f"{section.title}_features_{self.question.endpoint}", picture)
        section.pictures.append(self._picture(picture, f"{self.question.endpoint}, channel by channel", file))

    def _receptive_field(self, section: Section, pixels: np.ndarray, large: np.ndarray) -> None:
        image = self.normalize(jnp.asarray(pixels))
        field = receptive_field(self.model, self.net.variables, image, self.question.endpoint)
        sides = "the whole image" if np.inf in field.size else "x".join(f"{side:g}" for side in field.size) + " pixels"
        section.lines.append(f"{self.question.endpoint}, position {field.position}: sees {sides}")
        if field.effective:
            section.lines.append(
                f"of the {field.area:,} pixels of it that lie in the image {field.effective:,} have "
                f"at least {SHARE:.2%} of the largest gradient: a square of {field.effective**0.5:.0f} pixels"
            )
        else:
            section.lines.append("the gradient is zero everywhere: at this image the position answers to no pixel")
        factor = len(large) // len(pixels)
        # A few pixels have most of the gradient: their root shows the others as well.
        picture = overlay.overlay(large // 2, overlay.enlarge(np.sqrt(field.heat), factor), opacity=1)
        picture = overlay.draw_box(picture, factor * np.array(field.box), overlay.GIVEN)
        file = save_png(self.out, f"{section.title}_receptive-field_{self.question.endpoint}", picture)
        section.pictures.append(self._picture(picture, f"field of {self.question.endpoint} {field.position}", file))

    def _known_box(self, source: np.ndarray, path: pathlib.Path) -> np.ndarray | None:
        """The given box in the prepared image: a picture of the box is taken through the same transforms."""
        if self.question.box is None:
            return None
        left, top, right, bottom = (round(edge) for edge in self.question.box)
        mask = np.zeros_like(source)
        mask[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = 255
        inside = prepare(mask, self.net.data, path)[..., 0] > 127
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        if not len(rows):
            raise UserError(f"--box {left},{top},{right},{bottom} has no part in what the net sees of {path}")
        return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float64)

    def _picture(self, picture: np.ndarray, caption: str, file: str) -> Picture:
        return Picture(png(picture, caption), caption, file)


def _check_box(method: str, box: tuple[float, ...], images: list[pathlib.Path]) -> None:
    text = ",".join(f"{edge:g}" for edge in box)
    if method not in MAPS:
        raise UserError(f"--box goes with a map of one class: --method {', '.join(MAPS)}")
    if len(images) != 1:
        raise UserError(f"--box is the box of one image, and there are {len(images)}")
    if len(box) != 4 or box[0] >= box[2] or box[1] >= box[3]:
        raise UserError(f"--box {text} is no box: give left,top,right,bottom in pixels of the image file")


def _strongest(strengths: np.ndarray) -> np.ndarray:
    """The indices of the TILES largest, in their own order."""
    return np.sort(np.argsort(-strengths, kind="stable")[:TILES])


def _plot(curves: dict[str, Curve], label: str) -> markupsafe.Markup:
    figure = Figure(figsize=(4.5, 3), layout="constrained")
    axes = figure.subplots()
    for name, curve in curves.items():
        axes.plot(curve.shares, curve.probabilities, label=f"{name}, area {curve.area:.3f}")
    axes.set(xlabel="share of the pixels", ylabel="probability", ylim=(-0.02, 1.02))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return svg(figure, f"Deletion and insertion curves of {label}")
