"""Features: what a net that is not trained any more makes of every image of a split, computed once and kept."""

import contextlib
import dataclasses
import hashlib
import io
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
from flax.traverse_util import flatten_dict

from jaxcnn import config
from jaxcnn.data.examples import Examples
from jaxcnn.data.memory import load
from jaxcnn.data.pipeline import iterate
from jaxcnn.data.splits import open_split
from jaxcnn.errors import UserError, did_you_mean
from jaxcnn.experiment import Experiment
from jaxcnn.files import to_json, write_bytes
from jaxcnn.runs.batch_shapes import batch_fields
from jaxcnn.runs.evaluation import evaluation_batches
from jaxcnn.runs.initial_state import initial_state
from jaxcnn.runs.joined_draws import joined_draws
from jaxcnn.runs.resume import with_init_from


@dataclasses.dataclass(frozen=True)
class Features:
    """Of the images of a split that can be read, in its order."""

    values: np.ndarray
    """float32 [N, C]: a map of the net, averaged over its positions."""
    labels: np.ndarray
    """int32 [N]."""


class FrozenNet:
    """The net of an experiment as it is before the first step: the weights that `init_from` names, or random ones.

    Args:
      experiment: a classifier's; its evaluation transforms and its normalization prepare the images.
      endpoint: a map of the net's `features`; "final" is what its head reads.
      folder: in which features are kept, and looked for; None keeps none.
      say: is given what was loaded, and warnings.

    Raises:
      UserError: as `InitFrom`; the net has no such map, or no layer before its head.
    """

    def __init__(
        self,
        experiment: Experiment,
        endpoint: str = "final",
        folder: pathlib.Path | None = None,
        say: Callable[[str], None] = lambda line: None,
    ):
        self._experiment, self._endpoint, self._folder = experiment, endpoint, folder
        state = jax.jit(joined_draws(lambda: initial_state(experiment, optax.identity())))()
        state = with_init_from(state, experiment, say)
        self._variables = {"params": state.params, **state.stats}
        if set(state.params) <= {"head"}:
            raise UserError(
                "a linear probe is of what the layers before a net's head make of an image, and this net has none: "
                "train it, which fits a linear classifier of its pixels"
            )
        shape = (1, *experiment.data.shape(evaluated=True))
        maps = jax.eval_shape(self._maps, self._variables, jax.ShapeDtypeStruct(shape, np.uint8))
        if endpoint not in maps:
            hint = did_you_mean(endpoint, maps) or f"; there is {', '.join(maps)}"
            raise UserError(f"the net has no map {endpoint!r}{hint}")
        self._compute = jax.jit(self._pooled)

    def features(self, split: str) -> Features:
        """Of a split of the experiment's data: those that are kept of the same net and images, else computed.

        Raises:
          UserError: the split does not exist, does not fit the net, or has more broken images than are tolerated.
        """
        experiment = self._experiment
        examples = open_split(experiment.data.source, split, experiment.data.data_dir)
        experiment.task.check(experiment.model, examples)
        file = None if self._folder is None else self._folder / f"{self._fingerprint(examples)}.npz"
        if file is not None and (kept := _kept(file)) is not None:
            return kept
        found = self._read(examples)
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            written = io.BytesIO()
            np.savez(written, values=found.values, labels=found.labels)
            write_bytes(file, written.getvalue())
        return found

    def _read(self, examples: Examples) -> Features:
        experiment, data = self._experiment, self._experiment.data
        fields = batch_fields(experiment, evaluated=True)
        loaded, transforms = load(examples, data.preprocess, fields, data.memory_limit, data.tolerate_broken)
        made, values, labels = evaluation_batches(experiment, loaded, transforms), [], []
        broken = 0
        with (
            contextlib.closing(iterate(made, workers=data.workers)) as batches,
            jax.default_matmul_precision(experiment.precision),
        ):
            for batch in batches:
                broken += int(batch["broken"].sum())
                if broken > data.tolerate_broken:
                    last = made.broken(batch["index"][batch["broken"]])
                    raise UserError(
                        f"{broken} images of {examples.split} cannot be used and data.tolerate_broken is "
                        f"{data.tolerate_broken}" + (f"; the last: {last[-1]}" if last else "")
                    )
                found = jax.device_get(self._compute(self._variables, batch["image"]))
                values.append(found[batch["valid"]])
                labels.append(batch["label"][batch["valid"]])
        return Features(np.concatenate(values), np.concatenate(labels).astype(np.int32))

    def _maps(self, variables: Any, images: Any) -> dict[str, jax.Array]:
        model, normalize = self._experiment.model, self._experiment.data.normalize
        if not hasattr(model, "features"):
            raise UserError(f"{type(model).__name__} has no maps of features")
        maps: Any = model.apply(variables, normalize(images), train=False, method="features")
        return maps

    def _pooled(self, variables: Any, images: Any) -> jax.Array:
        found = self._maps(variables, images)[self._endpoint]
        return found.astype(np.float32).mean(tuple(range(1, found.ndim - 1)))

    def _fingerprint(self, examples: Examples) -> str:
        """Of all that the features are made of. The head is not: a new one for each seed changes nothing."""
        data = self._experiment.data
        parts = {
            "model": config.encode(self._experiment.model),
            "preparation": [config.encode(part) for part in (data.preprocess, data.normalize)],
            "shape": data.shape(evaluated=True),
            "precision": self._experiment.precision,
            "endpoint": self._endpoint,
            "images": [examples.name, examples.version, examples.split, len(examples), *examples.classes],
        }
        digest = hashlib.sha256(to_json(parts).encode())
        for path, array in sorted(flatten_dict(self._variables, sep="/").items()):
            if path.split("/")[1] != "head":
                digest.update(path.encode())
                digest.update(np.asarray(array).tobytes())
        return digest.hexdigest()[:32]


def _kept(file: pathlib.Path) -> Features | None:
    """What was written; None if there is nothing, or it is damaged and must be made again."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return Features(arrays["values"], arrays["labels"])
    except FileNotFoundError:
        return None
    except Exception:  # NumPy raises many types on damaged files
        return None
