"""R-CNN (Girshick, Donahue, Darrell & Malik 2014): warped proposals, features of a net, a machine for each class.

The net is that of an ordinary run: a classifier that was fine-tuned on `WarpedRegions`. The support vector machines and
the regression of boxes come after it, and are no training by gradients: a probe of the run, as C25's neighbors are an
arm. Without a second loop, and with nothing that a run would have to keep.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from jaxcnn.data.examples import Examples
from jaxcnn.data.splits import open_split
from jaxcnn.data.warped import PhotoRegions, WarpedRegions, regions_of
from jaxcnn.errors import UserError, did_you_mean
from jaxcnn.experiment import Data
from jaxcnn.metrics.average_precision import METRICS, AveragePrecision, Protocol, check_protocol, measure
from jaxcnn.metrics.proposal_recall import THRESHOLDS, proposal_recall, recall_name
from jaxcnn.models.classifier import Classifier
from jaxcnn.models.detector import Detections, select_detections
from jaxcnn.models.layers import activate
from jaxcnn.ops.box_coding import BoxCoder
from jaxcnn.runs.restore import RestoredRun
from jaxcnn.studies.region_svms import BoxRegressor, RegionFeatures, SVMs, fit_boxes, fit_svms, scale_to

BATCH = 256
"""Regions that a net sees at once."""
SOFTMAX = "probabilities"
NORM = 20.0
"""The mean norm of scaled features, for which the costs are."""
SAMPLE = 200
"""Photos, and regions of each, of which that is the mean."""
CANDIDATES = 100
"""Of each class and photo, before suppression."""
CODER = BoxCoder(clip=None)
LOWEST = -1e30
"""Any score of a machine is above; those of a class without one are not."""
TRUTH = ("boxes", "classes", "difficult", "crowd", "area")
See = Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class RCNN:
    """A probe of a classifier that was trained on WarpedRegions: R-CNN with its features, on the run's own photos.

    Machines and regressions are fitted on the run's training photos, whose features are kept in memory: for small sets.
    Measured on its first test split, by the protocol: "PROTOCOL_map of SVMs and boxes" is R-CNN's, beside it that of
    machines without the regression of boxes, and of the net's own probabilities (which the paper found to be 3.3
    points worse on VOC 2007, appendix B); the recall of the proposals bounds them.

    Departures from the released code: one bound of 100 candidates for each class and photo, before suppression, and
    not another one over the whole set; the features that its scale is the mean of are those of the first photos.

        study = jc.Study(..., probes=(jc.RCNN(layer="fc7", box_layer="final"),))
    """

    layer: str = "fc7"
    """Of the machines: an endpoint of the net, whose map is flattened, or a hidden layer of its head, after its
    activation."""
    box_layer: str = "final"
    """Of the regression of boxes: the last map, as in the paper (pool5)."""
    protocol: Protocol = "voc07"
    cost: float = 1e-3
    positive_weight: float = 2.0
    negative_iou: float = 0.3
    penalty: float = 1000.0
    """Of the ridge regression."""
    pair_iou: float = 0.6
    """Regions with a larger IoU with an object learn its box."""
    nms_iou: float = 0.3

    def __post_init__(self):
        check_protocol(self.protocol, "RCNN.protocol")

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of what `measure` returns."""
        score = METRICS[self.protocol][0]
        return (*(f"{score} of {way}" for way in WAYS), *map(recall_name, THRESHOLDS))

    def measure(self, run: RestoredRun) -> dict[str, float]:
        data = run.experiment.data
        variables = {"params": run.state.params, **run.state.stats}
        splits = (data.train_split, data.test_splits[0])
        found = detect_split(self, run.experiment.model, variables, data, splits)
        score = METRICS[self.protocol][0]
        values = [float(found.measured[way].metrics[score]) for way in WAYS]
        return dict(zip(self.metrics, (*values, *found.recall.values()), strict=True))


WAYS = ("SVMs and boxes", "SVMs", "softmax")


@dataclasses.dataclass(frozen=True)
class RCNNResult:
    """What R-CNN found in a split."""

    detector: "RCNNDetector"
    measured: dict[str, AveragePrecision]
    """By each of WAYS."""
    recall: dict[str, float]
    """Of the proposals."""
    photos: tuple[int, int]
    """Of the training, and of the test."""


@dataclasses.dataclass(frozen=True)
class RCNNDetector:
    """A fitted R-CNN."""

    settings: RCNN
    svms: SVMs
    scale: float
    """Of the machines' features."""
    boxes: list[BoxRegressor | None]
    """Of each class; None if it had no pair to learn from."""
    box_scale: float

    def detect(self, seen: Mapping[str, np.ndarray], boxes: np.ndarray, size: tuple[int, int]) -> dict[str, Any]:
        """Detections of a photo of (height, width) by each of WAYS, from what the net says of its proposals [P, 4]."""
        scores = self.svms.scores(self.scale * seen[self.settings.layer])
        moved = np.repeat(boxes[:, None].astype(np.float64), scores.shape[1], 1)
        limits = np.array([size[1], size[0]] * 2)
        features = self.box_scale * seen[self.settings.box_layer]
        for kind, regressor in enumerate(self.boxes):
            if regressor is not None:
                offsets = regressor.offsets(features)
                moved[:, kind] = np.clip(CODER.decode(offsets.astype(np.float32), boxes), 0, limits)
        still = np.repeat(boxes[:, None], scores.shape[1], 1)
        ways = ((scores, moved), (scores, still), (seen[SOFTMAX][:, 1:], still))
        return {way: thinned(*pair, self.settings.nms_iou) for way, pair in zip(WAYS, ways, strict=True)}


def detect_split(settings: RCNN, model: nn.Module, variables: Any, data: Data, splits: tuple[str, str]) -> RCNNResult:
    """R-CNN fitted on the first of two splits of the photos, and measured on the second.

    Raises:
      UserError: the run's source has no warped regions, the net is no classifier or has no such layer.
    """
    source = data.source
    if not isinstance(source, WarpedRegions) or not isinstance(model, Classifier):
        raise UserError(
            f"RCNN measures a Classifier that was trained on WarpedRegions, not a {type(model).__name__} on "
            f"{type(source).__name__}"
        )
    see = seer(model, variables, data, source, {settings.layer, settings.box_layer})
    train, test = (open_split(source.source, split, data.data_dir) for split in splits)
    detector = fit(settings, see, train)
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    truths, proposals = [], []
    for i in range(len(test)):
        example = test[i]
        boxes = example["proposals"]
        seen = see(example["image"], boxes)
        for way, detections in detector.detect(seen, boxes, example["image"].shape[:2]).items():
            found[way].append(detections)
        truths.append({name: example[name] for name in TRUTH if name in example})
        proposals.append(boxes)
    measured = {way: measure(settings.protocol, found[way], truths, len(test.classes)) for way in WAYS}
    return RCNNResult(detector, measured, proposal_recall(proposals, truths), (len(train), len(test)))


def fit(settings: RCNN, see: See, photos: Examples) -> RCNNDetector:
    """The machines and the regressions of training photos."""
    classes = len(photos.classes)
    every, kinds, inputs, targets, norms = [], [], [], [], []
    for i in range(len(photos)):
        photo = photos[i]
        regions = regions_of(photos, photo)
        seen = see(photo["image"], regions.boxes)
        every.append(RegionFeatures(seen[settings.layer], by_class(regions, classes), own_classes(regions)))
        if i < SAMPLE:
            norms.append(seen[settings.box_layer][:SAMPLE])
        if regions.objects:
            best, whose = regions.overlaps.max(1), regions.overlaps.argmax(1)
            pairs = best > settings.pair_iou
            inputs.append(seen[settings.box_layer][pairs])
            objects = regions.boxes[: regions.objects][whose[pairs]]
            targets.append(np.asarray(CODER.encode(objects, regions.boxes[pairs])))
            kinds.append(regions.classes[whose[pairs]])
    if not inputs:
        raise UserError(f"{photos.name}/{photos.split} has no object to learn from")
    scale = scale_to(NORM, np.concatenate([each.features[:SAMPLE] for each in every[:SAMPLE]]))
    svms = fit_svms(
        [each._replace(features=scale * each.features) for each in every],
        classes,
        cost=settings.cost,
        positive_weight=settings.positive_weight,
        negative_iou=settings.negative_iou,
    )
    box_scale = scale_to(NORM, np.concatenate(norms))
    features, offsets, of = np.concatenate(inputs), np.concatenate(targets), np.concatenate(kinds)
    boxes = [
        fit_boxes(box_scale * features[of == kind], offsets[of == kind], settings.penalty)
        if (of == kind).any()
        else None
        for kind in range(classes)
    ]
    return RCNNDetector(settings, svms, scale, boxes, box_scale)


def by_class(regions: PhotoRegions, classes: int) -> np.ndarray:
    """[R, K]: the largest IoU of each region with an object of each class, 0 without one."""
    found = np.zeros((len(regions.boxes), classes))
    for column, kind in enumerate(regions.classes.tolist()):
        found[:, kind] = np.maximum(found[:, kind], regions.overlaps[:, column])
    return found


def own_classes(regions: PhotoRegions) -> np.ndarray:
    """[R]: the class of each object, -1 of the proposals behind them."""
    found = np.full(len(regions.boxes), -1)
    found[: regions.objects] = regions.classes
    return found


def seer(model: Classifier, variables: Any, data: Data, source: WarpedRegions, layers: set[str]) -> See:
    """A function of a photo and regions [R, 4] of it: {layer: features [R, D], "probabilities": [R, classes]}.

    Raises UserError if the net has no such endpoint or layer of its head.
    """

    def look(variables: Any, images: jax.Array) -> dict[str, jax.Array]:
        kept = lambda module, method: module.name in layers and method == "__call__"  # noqa: E731
        prepared = data.normalize(images)
        ends: Any = model.apply(variables, prepared, train=False, method="features")
        final = ends["final"]
        answered: Any = model.apply(
            variables, final, train=False, method="classify", capture_intermediates=kept, mutable=["intermediates"]
        )
        logits, state = answered
        hidden = state.get("intermediates", {}).get("head", {})
        activation: Any = getattr(model.head, "activation", "relu")
        found = {name: activate(each["__call__"][0], activation) for name, each in hidden.items()}
        every = {**{name: end.reshape(len(end), -1) for name, end in ends.items()}, **found}
        for name in layers - every.keys():
            hint = did_you_mean(name, every) or f"; there is {', '.join(every)}, and the hidden layers of its head"
            raise UserError(f"RCNN: the net makes no {name!r}{hint}")
        return {name: every[name] for name in layers} | {SOFTMAX: jax.nn.softmax(logits)}

    jitted = jax.jit(look)

    def see(image: np.ndarray, boxes: np.ndarray) -> dict[str, np.ndarray]:
        parts = []
        for start in range(0, max(len(boxes), 1), BATCH):
            crops = source.warp(image, boxes[start : start + BATCH])
            filled = np.zeros((BATCH, *crops.shape[1:]), np.uint8)
            filled[: len(crops)] = crops
            parts.append({name: each[: len(crops)] for name, each in jax.device_get(jitted(variables, filled)).items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    return see


def thinned(scores: np.ndarray, boxes: np.ndarray, threshold: float) -> dict[str, np.ndarray]:
    """Scores [P, K] and boxes [P, K, 4] of every class -> the detections that are left of the 100 best of each class
    when those are gone whose IoU with a better one of their class is above the threshold."""
    classes = scores.shape[1]
    rows = np.argsort(-scores, axis=0, kind="stable")[:CANDIDATES]
    best, columns = np.take_along_axis(scores, rows, 0), np.arange(classes)
    candidates = np.zeros((CANDIDATES, classes, 4), np.float32)
    filled = np.full((CANDIDATES, classes), -np.inf, np.float32)
    candidates[: len(rows)], filled[: len(rows)] = boxes[rows, columns], best
    kinds = np.tile(columns, CANDIDATES)
    kept = _thinned(candidates.reshape(1, -1, 4), filled.reshape(1, -1), kinds[None], threshold)
    count = int(kept.count[0])
    return {name: np.asarray(getattr(kept, name)[0, :count]) for name in ("boxes", "scores", "classes")}


@functools.partial(jax.jit, static_argnums=3)
def _thinned(boxes: jax.Array, scores: jax.Array, classes: jax.Array, threshold: float) -> Detections:
    return select_detections(
        boxes, scores, classes, score_threshold=LOWEST, iou_threshold=threshold, size=boxes.shape[1]
    )
