"""jaxcnn: convolutional networks for images, from a linear classifier to EfficientNet.

Its names are imported when they are first used, so that `import jaxcnn` costs next to nothing.
"""

import importlib
import sys
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxcnn.data.digits import Digits as Digits
    from jaxcnn.data.folder import Folder as Folder
    from jaxcnn.data.synthetic import Synthetic as Synthetic
    from jaxcnn.data.tfds import Tfds as Tfds
    from jaxcnn.data.transforms import Normalize as Normalize
    from jaxcnn.errors import UserError as UserError
    from jaxcnn.experiment import Data as Data
    from jaxcnn.experiment import Experiment as Experiment
    from jaxcnn.explain.summary import endpoints as endpoints
    from jaxcnn.explain.summary import summarize as summarize
    from jaxcnn.models import FC as FC
    from jaxcnn.models import GAP as GAP
    from jaxcnn.models import MODELS as MODELS
    from jaxcnn.models import Classifier as Classifier
    from jaxcnn.models import create_model as create_model
    from jaxcnn.models import list_models as list_models
    from jaxcnn.models.classifier import Outputs as Outputs
    from jaxcnn.models.pretrained import from_torch as from_torch
    from jaxcnn.run import Run as Run
    from jaxcnn.run import load_run as load_run
    from jaxcnn.train.duration import epochs as epochs
    from jaxcnn.train.duration import examples as examples
    from jaxcnn.train.duration import steps as steps
    from jaxcnn.train.optimizers import SGD as SGD
    from jaxcnn.train.optimizers import Adam as Adam

_FROM = {
    "jaxcnn.data.digits": ("Digits",),
    "jaxcnn.data.folder": ("Folder",),
    "jaxcnn.data.synthetic": ("Synthetic",),
    "jaxcnn.data.tfds": ("Tfds",),
    "jaxcnn.data.transforms": ("Normalize",),
    "jaxcnn.errors": ("UserError",),
    "jaxcnn.experiment": ("Data", "Experiment"),
    "jaxcnn.explain.summary": ("endpoints", "summarize"),
    "jaxcnn.models": ("FC", "GAP", "MODELS", "Classifier", "create_model", "list_models"),
    "jaxcnn.models.classifier": ("Outputs",),
    "jaxcnn.models.pretrained": ("from_torch",),
    "jaxcnn.run": ("Run", "load_run"),
    "jaxcnn.train.duration": ("epochs", "examples", "steps"),
    "jaxcnn.train.optimizers": ("SGD", "Adam"),
}
_MODULES = {name: module for module, names in _FROM.items() for name in names}

__all__ = [*_MODULES, "train"]  # train is the package, which can be called: jaxcnn/train/__init__.py


def __getattr__(name: str) -> Any:
    if name == "train":
        return importlib.import_module("jaxcnn.train")
    if name not in _MODULES:
        raise AttributeError(f"module 'jaxcnn' has no attribute {name!r}")
    globals()[name] = value = getattr(_imported(_MODULES[name]), name)
    return value


def _imported(name: str) -> ModuleType:
    """The module, imported in a thread of its own if it is not there yet.

    A name may first be used while Flax calls a net, and Flax keeps in a thread-local which one: the heads that
    jaxcnn.models makes when it is imported would become parts of that net.
    """
    if name in sys.modules:
        return importlib.import_module(name)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(importlib.import_module, name).result()


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
