"""Parts: what a source, transform, optimizer, schedule, task, loss or model of a user's own must have.

It is checked when it is given; docs/own_parts.md has an example of each.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from flax import linen as nn

from jaxcnn.errors import UserError

SOURCE = {"open": "open(split, data_dir=None), which returns the examples of one split"}
EXAMPLES = {
    "name": 'a str, such as "my_photos"',
    "version": 'a str, such as "1"',
    "split": "the str that open() was given",
    "classes": "a tuple of class names in label order",
    "__len__": "__len__(), the number of examples",
    "__getitem__": '__getitem__(i), a dict: "image" uint8 [H, W, C] and what the task reads, such as "label", a whole '
    "number in [0, len(classes))",
    "where": "where(i), a str that names example i for a person, such as its file's path",
}
TRANSFORM = {
    "__call__": "__call__(image, rng), from uint8 [H, W, C] to uint8 [H', W', C'], drawing from rng alone (or, if "
    "masks, boxes or points have to move with the image, draw(shape, rng), in a class that extends jc.Geometric)"
}
NORMALIZE = {"__call__": "__call__(images), from uint8 [B, H, W, C] to what the model reads, with jax.numpy"}
OPTIMIZER = {
    "build": "build(rate), from a function step -> learning rate to an optax transformation that scales by it",
    "learning_rate": "a float, the peak rate, which the schedule multiplies",
}
GROUP = {
    "match": 'a pattern of parameters, as jc.Group has it: jc.Group("params/backbone/*", freeze=True)',
    "freeze": "whether they stay as they are",
}
AVERAGE = {
    "on": "whether there is an average",
    "update": "update(average, params, stats, groups, step), the average after a step, as jc.EMA and jc.SWA have it",
}
SAMPLING = {"order": "order(labels, classes), the stream of examples, as jc.Balanced has it"}
EARLY_STOPPING = {
    "patience": "how many evaluations may fail to improve, as jc.EarlyStopping(patience=3) has it",
    "on": "whether it is on",
}
SCHEDULE = {"build": "build(total, to_steps), a function step -> multiplier of the peak rate, with jax.numpy"}
LOSS = {"__call__": "__call__(logits [B, classes], labels [B]) -> losses [B], with jax.numpy"}
MIXING = {"__call__": "__call__(images [B, H, W, C], key) -> mixed images and shares [B] of their own, with jax.numpy"}
VIEWS = {
    "log_probabilities": "log_probabilities(model, variables, images [B, H, W, C]) -> logarithms of probabilities "
    "[B, classes], with jax.numpy"
}
DETECTION_LOSS = {
    "parts": "the names of the losses that add up to the whole",
    "losses": "losses(model, variables, batch, *, train, rngs) -> {part: losses [B]}, updated collections",
}
TASK = {
    "directions": '{metric: "higher" or "lower"}, the score first',
    "shares": "the metrics that are shares of images, () for none",
    "fields": "fields(image_shape), {name: Field}, what a batch holds beside the image",
    "check": "check(model, examples), which raises UserError if they do not fit",
    "loss": "loss(model, variables, batch, *, train, rngs) -> loss, updated collections, sums",
    "outputs": "outputs(model, variables, batch) -> sums, records",
    "metrics": "metrics(sums, records) -> {metric: float}",
    "predict": "predict(model, variables, images) -> arrays [B, ...]",
    "answer": "answer(predicted, image, classes, top) -> Answer",
}
MODEL = {
    "classes": "an int, the number of logits",
    "outputs": "outputs(images, *, train), an object with logits [B, classes] and aux, {} without auxiliary heads",
}


def check_part(field: str, part: Any, members: Mapping[str, str], stored: bool = True) -> None:
    """Refuses what cannot be this part, with what it lacks.

    Args:
      field: where it was given, such as "data.source".
      part: what was given there.
      members: name -> what it should be.
      stored: whether config.json must hold it, so that it is a dataclass.

    Raises:
      UserError: it is a class and no object, lacks a member, or cannot be stored.
    """
    if isinstance(part, type):
        raise UserError(f"{field} is the class {part.__name__}; give an object of it: {part.__name__}()")
    # Every object of a class with __call__ is callable; a function is too, but has no fields to store.
    missing = [what for name, what in members.items() if not hasattr(part, name)]
    kind = type(part).__name__
    if missing:
        raise UserError(
            f"{field} is {_called(kind)}, which lacks {'; and '.join(missing)} (docs/own_parts.md has an example)"
        )
    if stored and not dataclasses.is_dataclass(part):
        name = getattr(part, "__name__", kind)
        raise UserError(
            f"{field} is {_called(kind)} {name!r}, which config.json cannot hold; make it a frozen dataclass with "
            f"{'; and '.join(members.values())} (docs/own_parts.md has an example)"
        )


def check_parts(field: str, parts: Any, members: Mapping[str, str]) -> None:
    """The same for a tuple of them. Raises UserError too if it is no tuple or list."""
    if not isinstance(parts, tuple | list):
        raise UserError(
            f"{field} is {_called(type(parts).__name__)}; give a tuple, such as ({type(parts).__name__}(...),)"
        )
    for number, part in enumerate(parts):
        check_part(f"{field}.{number}", part, members)


def check_whole_numbers(value: Any, path: str = "") -> None:
    """Refuses a number that is none, 1.5 say, in a field of type int, in a tree of dataclasses and tuples of them.

    Modules are left out: what they hold is theirs to check.

    Raises:
      UserError: it names the field.
    """
    if isinstance(value, tuple | list):
        for number, item in enumerate(value):
            check_whole_numbers(item, f"{path}.{number}")
    if not dataclasses.is_dataclass(value) or isinstance(value, type | nn.Module):
        return
    for field in dataclasses.fields(value):
        held, name = getattr(value, field.name, None), f"{path}.{field.name}" if path else field.name
        if field.type in _WHOLE and isinstance(held, float | complex | str):
            raise UserError(f"{name} is {held!r}; it must be a whole number")
        check_whole_numbers(held, name)


_WHOLE = (int, int | None, "int", "int | None")
"""Types of such fields, as they stand in a class; text where its file says `from __future__ import annotations`."""


def check_pairs(field: str, value: Any, named: str) -> None:
    """Raises UserError unless the value is pairs, `named` such as "(there, here)"."""
    for pair in value:
        if not (isinstance(pair, tuple | list) and len(pair) == 2):
            raise UserError(f"{field} is pairs {named}, and {pair!r} is none")


def _called(kind: str) -> str:
    return f"{'an' if kind[0].lower() in 'aeiou' else 'a'} {kind}"
