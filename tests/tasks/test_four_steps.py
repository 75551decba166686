"""The four steps of training Faster R-CNN, as experiments/faster_rcnn_voc.py has them, on a tiny net."""

import dataclasses
import functools
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from jaxcnn.data.transforms import IMAGENET
from jaxcnn.errors import UserError
from jaxcnn.flags import parse
from jaxcnn.models import create_model
from jaxcnn.models.rcnn import RegionDetector
from jaxcnn.models.vgg import VGG
from jaxcnn.runs.program import train_step
from jaxcnn.summary.summary import summarize
from jaxcnn.train.groups import check_groups, group_lines
from jaxcnn.train.init_from import InitFrom, chosen, overlay
from jaxcnn.train.optimizers import build_optimizer
from jaxcnn.train.state import create_state
from tests.compilation import quick
from tests.tiny_runs import ROOT

FILE = ROOT / "experiments" / "faster_rcnn_voc.py"
SIZE, CLASSES = (32, 32), 3
TINY = {"variant": "A", "stages": 3, "width": 0.1}


@functools.cache
def recipe(step, start="there"):
    return parse(pathlib.Path(FILE), ["--step", step, *(["--start", start] if start else [])]).experiment


def tiny(step):
    """The experiment of a step with a net of VGG-A's first three stages, narrow, on small images."""
    made = recipe(step)
    own = {"rpn_backbone": VGG("A")} if made.model.rpn_backbone is not None else {}
    model = create_model(
        "faster_rcnn_vgg16",
        **{"classes": CLASSES, "sizes": ((8, 16, 24),), "before_nms": (64, 32), "after_nms": (32, 16), "min_size": 2},
        **{"endpoints": ("stage3",), "maps": (("stage3", 4),), "widths": (32, 32), "dropout": 0.0, **TINY, **own},
    )
    data = dataclasses.replace(made.data, image_shape=(*SIZE, 3), normalize=IMAGENET)
    optimizer = dataclasses.replace(made.optimizer, learning_rate=0.02)
    return dataclasses.replace(made, model=model, data=data, optimizer=optimizer)


@functools.cache
def batch():
    """Two images, each with a bright box on noise; uint8, as the step takes them."""
    rng = np.random.default_rng(0)
    boxes = np.zeros((2, 100, 4), np.float32)
    classes = np.full((2, 100), -1, np.int32)
    boxes[0, :2], classes[0, :2] = [[2, 3, 15, 20], [17, 10, 31, 30]], [0, 2]
    boxes[1, 0], classes[1, 0] = [5, 6, 25, 29], 1
    images = rng.integers(90, 150, (2, *SIZE, 3)).astype(np.uint8)
    for image, where, kinds in zip(images, boxes.astype(int), classes, strict=True):
        for (left, top, right, bottom), kind in zip(where[kinds >= 0], kinds[kinds >= 0], strict=True):
            image[top:bottom, left:right, kind] = 250
    fields = recipe("joint").task.fields((*SIZE, 3))
    empty = {name: field.empty(2) for name, field in fields.items()}
    return empty | {"image": images, "boxes": boxes, "classes": classes}


def first_state(made, optimizer, seed):
    """As training begins, but drawn by numpy, which takes no compilation."""
    images = jnp.zeros((1, *SIZE, 3))
    shapes = jax.eval_shape(lambda: made.model.init(jax.random.key(0), images, train=False, method="outputs"))
    rng = np.random.default_rng(seed)
    draw = lambda leaf: jnp.asarray(rng.normal(0, (2 / math.prod(leaf.shape[:-1] or (99,))) ** 0.5, leaf.shape))  # noqa: E731
    variables = jax.tree.map(lambda leaf: draw(leaf).astype(leaf.dtype), shapes)
    sums = dict.fromkeys(("loss", *made.task.criterion.parts), jnp.float32(0)) | {"count": jnp.int32(0)}
    return create_state(variables, optimizer, False, None, sums, jax.random.key(0), made.groups)


def train(step, saved, count=20):
    """(the state that the step starts from, that at its end, the losses); `saved` is that of the step before."""
    made, rate = tiny(step), lambda step: jnp.float32(0.02)
    optimizer = build_optimizer(made.optimizer, rate, None, made.groups)
    state = first_state(made, optimizer, int(step))
    check_groups(state.params, made.groups)
    if saved is not None:
        state, _ = overlay(state, saved, made.init_from)
    step_of = quick(train_step(made, optimizer, rate, log_every=1))
    compiled, losses, first = (
        step_of.lower(state, {}, batch()).compile(),
        [],
        state,
    )  # once: jit would ask where arrays are
    for _ in range(count):
        state, measured = compiled(state, {}, batch())
        losses.append(float(measured["step_loss"]))
    return first, state, losses


@functools.cache
def vgg16():
    """A run of the classifier that the steps start from."""
    model = create_model("vgg16", classes=5, widths=(32, 32), **TINY)
    made = dataclasses.replace(recipe("joint"), model=model, groups=())
    optimizer = build_optimizer(made.optimizer, lambda step: 0.0, None)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 224, 224, 3)), train=False))
    rng = np.random.default_rng(9)
    variables = jax.tree.map(lambda x: jnp.asarray(rng.normal(0, 0.1, x.shape), x.dtype), shapes)
    return create_state(variables, optimizer, False, None, {}, jax.random.key(0))


@functools.cache
def steps():
    """{step: what `train` gives}, each from the one before."""
    done, saved = {}, vgg16()
    for step in "1234":
        done[step] = train(step, saved)
        saved = done[step][1]
    return done


def moved(step):
    """The parts of the net of which every array has moved, and those that are equal to the bit."""
    first, last, _ = steps()[step]
    before, after = (flatten_dict(state.params, sep="/") for state in (first, last))
    changed = {path for path in before if not np.array_equal(before[path], after[path])}
    return changed, before.keys() - changed


CONV12 = ("conv1_", "conv2_")


@pytest.mark.parametrize(
    ("step", "learns"),
    [("1", ("rpn_backbone/conv", "rpn/")), ("2", ("backbone/conv", "head/")), ("3", ("rpn/",)), ("4", ("head/",))],
)
def test_each_step_moves_what_it_trains_and_nothing_else(step, learns):
    changed, still = moved(step)
    assert changed and all(path.startswith(learns) and not any(c in path for c in CONV12) for path in changed)
    assert all(not path.startswith(learns) or any(c in path for c in CONV12) for path in still)
    losses = steps()[step][2]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:2])


def test_each_step_starts_from_the_one_before():
    params = {step: (first.params, last.params) for step, (first, last, _) in steps().items()}
    classifier = vgg16().params

    def same(one, other):
        jax.tree.map(np.testing.assert_array_equal, one, other)

    for backbone in ("backbone", "rpn_backbone"):
        same(params["1"][0][backbone], classifier["backbone"])
    assert params["1"][0]["head"]["fc6"]["kernel"].size == classifier["head"]["fc6"]["kernel"].size
    same(params["2"][0], params["1"][1])
    for part in ("backbone", "head"):
        same(params["3"][0][part], params["2"][1][part])
    assert not np.array_equal(params["3"][0]["rpn"]["conv"]["kernel"], params["2"][1]["rpn"]["conv"]["kernel"])
    same(params["4"][0], params["3"][1])
    assert "rpn_backbone" in params["2"][1] and "rpn_backbone" not in params["4"][1]
    same(params["4"][1]["backbone"], params["2"][1]["backbone"])


def test_the_net_of_the_fourth_step_detects_with_shared_convolutions():
    """One pass over the trunk serves both stages; its detections are those of the parts by hand."""
    made, (_, last, _) = tiny("4"), steps()["4"]
    variables, images = {"params": last.params}, made.data.normalize(jnp.asarray(batch()["image"]))
    trunk = lambda step: {  # noqa: E731
        layer.name for layer in summarize(tiny(step).model, (*SIZE, 3)).layers if "backbone" in layer.name
    }
    assert len(trunk("2")) == 2 * len(trunk("4")) and not any("rpn_backbone" in name for name in trunk("4"))

    model = made.model.clone(score_threshold=0.0)

    def both_ways(model: RegionDetector):
        ends = model.backbone(images, train=False)
        proposals = model.rpn.propose(model.rpn(ends, SIZE), SIZE, train=False)
        return proposals.valid, model.classify(ends, proposals.boxes, train=False), model(images, train=False)

    valid, regions, found = quick(lambda variables: model.apply(variables, method=both_ways))(variables)
    scores = jax.nn.softmax(regions.logits)[..., 1:]
    for i in range(2):  # the surest detection of each class is the surest region
        best = [found.scores[i][found.classes[i] == label].max() for label in range(CLASSES)]
        np.testing.assert_allclose(best, scores[i][valid[i]].max(0), rtol=1e-5)


def test_the_full_nets_take_each_others_weights():
    """As `jaxcnn` checks before a start: from VGG-16's to the fourth step's; the counts of what stays fixed."""
    size = jnp.zeros((1, 64, 64, 3))

    def shapes(model, size=size):
        variables = lambda: model.init(jax.random.key(0), size, train=False)  # noqa: E731
        return jax.eval_shape(lambda: create_state(variables(), NO_OPTIMIZER, False, None, {}, jax.random.key(0)))

    made = {step: recipe(step) for step in ("joint", *"1234")}
    states = {step: shapes(each.model) for step, each in made.items() if step in ("1", "joint")}
    states |= {"2": states["1"], "3": states["joint"], "4": states["joint"]}
    classifier = shapes(create_model("vgg16"), jnp.zeros((1, 224, 224, 3)))
    taken = chosen(states["1"], classifier, made["1"].init_from)
    assert len(taken) == 2 * 26 + 4 and chosen(states["joint"], classifier, made["joint"].init_from)
    for before, after in ("12", "23", "34"):
        assert chosen(states[after], states[before], made[after].init_from)
    for step, each in made.items():
        check_groups(states[step].params, each.groups)
    lines = group_lines(states["joint"].params, made["joint"].groups)
    assert lines[0].endswith(": 8 arrays, 260,160 values, frozen")
    assert all("conv[12]" not in group.match for group in recipe("1", None).groups)


NO_OPTIMIZER = build_optimizer(recipe("joint").optimizer, lambda step: 0.0, None)


def test_a_name_under_which_nothing_is_gets_a_hint():
    made = tiny("1")
    state = first_state(made, NO_OPTIMIZER, 0)
    with pytest.raises(UserError, match="nothing is under 'params/backbonne' in there; did you mean 'params/backbone'"):
        chosen(state, vgg16(), InitFrom("there", rename=(("params/backbonne", "params/backbone"),)))
    with pytest.raises(UserError, match=r"init_from.rename is pairs \(there, here\), and 'ab' is none"):
        InitFrom("there", rename=("ab",))
