"""YOLO's loss against equation 3 read loop by loop, without objects, with garbage behind them, and its gradient."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from jaxcnn.errors import UserError
from jaxcnn.models.detector import GridOutputs
from jaxcnn.tasks.yolo_loss import YOLOLoss, assign_cells

SIZE, GRID, P, C, M = (60, 100), (3, 4), 2, 3, 5


def random_outputs(rng, batch=2):
    draw = lambda *shape: rng.normal(0.3, 0.5, (batch, *GRID, *shape)).astype(np.float32)  # noqa: E731
    return GridOutputs(draw(P, 4), draw(P), draw(C))


def random_truth(rng, batch=2):
    """Up to M objects; the first image of every fourth batch has none."""
    height, width = SIZE
    first = rng.uniform(0, 0.8, (batch, M, 2)) * (width, height)
    last = first + rng.uniform(0.05, 0.2, (batch, M, 2)) * (width, height)
    classes = rng.integers(0, C, (batch, M))
    counts = rng.integers(0, M + 1, batch)
    if rng.integers(4) == 0:
        counts[0] = 0
    classes[np.arange(M) >= counts[:, None]] = -1
    return np.concatenate([first, last], -1).astype(np.float32), classes.astype(np.int32)


def overlap(one, other):
    sides = [min(one[i + 2], other[i + 2]) - max(one[i], other[i]) for i in (0, 1)]
    inside = max(sides[0], 0) * max(sides[1], 0)
    area = lambda box: (box[2] - box[0]) * (box[3] - box[1])  # noqa: E731
    return inside / (area(one) + area(other) - inside)


def by_loops(loss, said, boxes, classes):
    """Equation 3 for one image, in units of the image's sides."""
    (height, width), (rows, columns) = SIZE, GRID
    cells = {}
    for (x0, y0, x1, y1), label in zip(boxes.astype(float), classes, strict=True):
        if label >= 0:
            x, y = (x0 + x1) / 2 / width, (y0 + y1) / 2 / height
            cells.setdefault((int(y * rows), int(x * columns)), (x, y, (x1 - x0) / width, (y1 - y0) / height, label))
    total = {"box_loss": 0.0, "confidence_loss": 0.0, "class_loss": 0.0}
    for row, column in np.ndindex(GRID):
        confidence = said.confidence[row, column].astype(float)
        predicted = said.boxes[row, column].astype(float)
        responsible, target = -1, 0.0
        if (row, column) in cells:
            x, y, w, h, label = cells[row, column]
            true = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
            ious, distances = [], []
            for px, py, root_w, root_h in predicted:
                px, py, pw, ph = (column + px) / columns, (row + py) / rows, root_w**2, root_h**2
                ious.append(overlap((px - pw / 2, py - ph / 2, px + pw / 2, py + ph / 2), true))
                distances.append((px - x) ** 2 + (py - y) ** 2 + (pw - w) ** 2 + (ph - h) ** 2)
            responsible = int(np.argmax(ious))
            if loss.responsible == "iou_or_rmse" and max(ious) == 0:
                responsible = int(np.argmin(distances))
            target = ious[responsible] if loss.confidence_target == "iou" else 1.0
            px, py, root_w, root_h = predicted[responsible]
            errors = (px - (x * columns - column), py - (y * rows - row), root_w - w**0.5, root_h - h**0.5)
            total["box_loss"] += loss.coordinate * sum(error**2 for error in errors)
            wanted = np.eye(C)[label]
            total["class_loss"] += ((said.classes[row, column] - wanted) ** 2).sum()
        for number in range(P):
            if number == responsible:
                total["confidence_loss"] += (confidence[number] - target) ** 2
            else:
                total["confidence_loss"] += loss.no_object * confidence[number] ** 2
    return total


@pytest.mark.parametrize(
    "loss",
    [
        YOLOLoss(),
        YOLOLoss(responsible="iou_or_rmse"),
        YOLOLoss(coordinate=2.0, no_object=0.1, confidence_target="one"),
    ],
    ids=["paper", "darknet", "weights"],
)
def test_equals_equation_3_read_loop_by_loop(loss):
    rng = np.random.default_rng(0)
    compute = jax.jit(lambda *batch: loss.of_outputs(*batch, SIZE))
    for _ in range(400):
        said, (boxes, classes) = random_outputs(rng), random_truth(rng)
        found = compute(said, boxes, classes)
        for image in range(2):
            one = jax.tree.map(lambda x, image=image: np.asarray(x)[image], said)
            for part, expected in by_loops(loss, one, boxes[image], classes[image]).items():
                assert float(found[part][image]) == pytest.approx(expected, rel=1e-4, abs=1e-5), part


def test_the_choices_do_make_a_difference():
    rng = np.random.default_rng(1)
    said, (boxes, classes) = random_outputs(rng, 64), random_truth(rng, 64)
    losses = [YOLOLoss(), YOLOLoss(responsible="iou_or_rmse"), YOLOLoss(confidence_target="one")]
    compute = jax.jit(lambda: [each.of_outputs(said, boxes, classes, SIZE) for each in losses])
    values = [sum(float(x.sum()) for x in parts.values()) for parts in compute()]
    assert len(set(values)) == 3


def test_the_first_of_two_objects_in_a_cell_is_the_cells():
    boxes = np.array([[[0, 0, 10, 10], [1, 1, 12, 12], [50, 30, 60, 40]]], np.float32)
    targets = assign_cells(jnp.asarray(boxes), jnp.array([[2, 1, 0]]), GRID, SIZE)
    assert targets.has.sum() == 2 and targets.classes[0, 0, 0] == 2
    np.testing.assert_array_equal(targets.boxes[0, 0, 0], boxes[0, 0])
    assert targets.classes[0, 1, 2] == 0


def test_rows_that_are_no_objects_change_nothing_whatever_they_hold():
    rng = np.random.default_rng(2)
    said, (boxes, classes) = random_outputs(rng, 8), random_truth(rng, 8)
    garbage = np.where((classes < 0)[..., None], np.float32(np.nan), boxes)
    longer = np.concatenate([garbage, np.full((8, 3, 4), -np.inf, np.float32)], 1)
    more = np.concatenate([classes, np.full((8, 3), -1, np.int32)], 1)

    def total(said, boxes, classes):
        return sum(x.sum() for x in YOLOLoss().of_outputs(said, boxes, classes, SIZE).values())

    both = jax.jit(jax.value_and_grad(total))
    value, gradient = both(said, boxes, classes)
    same, its_gradient = both(said, longer, more)
    assert np.isfinite(value) and value == same
    assert jax.tree.all(jax.tree.map(np.array_equal, gradient, its_gradient))


def test_images_without_objects_have_a_finite_loss_and_gradient_and_no_box_loss():
    said = random_outputs(np.random.default_rng(3))
    nothing = np.zeros((2, M, 4), np.float32), np.full((2, M), -1, np.int32)

    def total(said):
        parts = YOLOLoss().of_outputs(said, *nothing, SIZE)
        return sum(x.sum() for x in parts.values()), parts

    (_, parts), gradient = jax.jit(jax.value_and_grad(total, has_aux=True))(said)
    assert not parts["box_loss"].any() and not parts["class_loss"].any() and (parts["confidence_loss"] > 0).all()
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradient))
    assert not gradient.boxes.any() and np.abs(gradient.confidence).min() > 0


def test_the_gradient_is_that_of_finite_differences_and_does_not_go_through_the_iou():
    """The confidence target is held where it is: with target "one" nothing has to be held."""
    rng = np.random.default_rng(4)
    said, (boxes, classes) = random_outputs(rng, 1), random_truth(rng, 1)
    with jax.enable_x64(True):
        said = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), said)
        loss = YOLOLoss(confidence_target="one")

        def total(said, loss=loss):
            parts = loss.of_outputs(said, jnp.asarray(boxes, jnp.float64), classes, SIZE)
            return sum(x.sum() for x in parts.values())

        flat, restore = ravel_pytree(said)
        plain = jax.jit(jax.grad(total))(said)
        gradient = ravel_pytree(plain)[0]
        compute = jax.jit(lambda flat: total(restore(flat)))
        for i in rng.permutation(len(flat))[:60]:
            step = jnp.zeros_like(flat).at[i].set(1e-6)
            slope = (compute(flat + step) - compute(flat - step)) / 2e-6
            assert float(gradient[i]) == pytest.approx(float(slope), rel=1e-5, abs=1e-6)
        with_iou = jax.jit(jax.grad(lambda said: total(said, YOLOLoss())))(said)
        np.testing.assert_allclose(with_iou.boxes, plain.boxes, rtol=1e-12)


@pytest.mark.parametrize(
    "field, value",
    [("coordinate", -1.0), ("no_object", float("inf")), ("responsible", "best"), ("confidence_target", "0")],
)
def test_a_wrong_field_is_one_message(field, value):
    with pytest.raises(UserError, match=f"YOLOLoss: {field} is"):
        dataclasses.replace(YOLOLoss(), **{field: value})
