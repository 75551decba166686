"""jaxcnn: convolutional networks for images in JAX and Flax, from a linear classifier to EfficientNet."""

from jaxcnn.errors import UserError
from jaxcnn.experiment import Data, Experiment
from jaxcnn.explain.summary import endpoints, summarize
from jaxcnn.models import MODELS, Classifier, create_model, list_models

__all__ = [
    "MODELS",
    "Classifier",
    "Data",
    "Experiment",
    "UserError",
    "create_model",
    "endpoints",
    "list_models",
    "summarize",
]
