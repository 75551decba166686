"""Units: figures of studies as people say them: 91.6%, +2.6 points, 3.5 epochs."""

import functools
from typing import Any

from jaxcnn.metrics.average_precision import METRICS as PRECISIONS
from jaxcnn.studies.study import EXACT
from jaxcnn.studies.weak_localization import METRICS as BOXES
from jaxcnn.tasks.classification import Classification
from jaxcnn.tasks.localization import Localization
from jaxcnn.tasks.multi_label import MultiLabel
from jaxcnn.tasks.segmentation import Segmentation

Results = dict[str, Any]
MINUS = "\N{MINUS SIGN}"


def is_percentage(metric: str) -> bool:
    """Whether a figure lies between 0 and 1, or is a difference of two such: it is said in percent, and in points."""
    words = metric.split()
    return bool(_scores() & {*words}) and "loss" not in words and not metric.startswith("epochs to ")


@functools.cache
def _scores() -> frozenset[str]:
    """Metrics of which 1 is the best value, by the tasks' own lists; "gap" is a difference of two."""
    tasks = (Classification(), Localization(), MultiLabel(), Segmentation())
    higher = {name for task in tasks for name, way in task.directions.items() if way == "higher"}
    return frozenset(higher | {*BOXES, "gap"} | {name for names in PRECISIONS.values() for name in names})


def unit(metric: str) -> str:
    """What a difference of two such figures is counted in, "" of a loss."""
    if is_percentage(metric):
        return "points"
    if metric in EXACT:
        return metric.removesuffix(" kept")
    if metric.startswith("relative "):
        return "times"
    return next((word for word in ("epochs", "milliseconds") if word in metric.split()), "")


def scale(metric: str) -> float:
    """What a figure is multiplied with to be in its `unit`."""
    return 100.0 if is_percentage(metric) else 1.0


def figure(metric: str, value: float) -> str:
    """A figure with its unit: "91.6%", "3.5 epochs", "20,666", "0.532"."""
    if is_percentage(metric):
        return f"{100 * value:.1f}%"
    if metric in EXACT:
        return _count(value)
    return f"{value:.3g} {unit(metric)}".strip()


def signed(metric: str, value: float, with_unit: bool = True) -> str:
    """A difference: "+2.6 points", "\N{MINUS SIGN}0.4 points", "+0.041"."""
    size = _size(metric, value)
    sign = "" if not float(size.replace(",", "")) else "+" if value > 0 else MINUS
    return f"{sign}{size}" + (f" {unit(metric)}" if with_unit and unit(metric) else "")


def _size(metric: str, value: float) -> str:
    value = abs(value)
    if is_percentage(metric):
        return f"{100 * value:.1f}"
    if metric in EXACT:
        return _count(value)
    return f"{value:.3g}" if value >= 0.001 or not value else f"{value:.1g}"


def _count(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
