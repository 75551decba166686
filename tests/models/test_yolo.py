"""YOLO v1: its layers by the paper, its decoding by a loop, and what it gives for padding and nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.errors import UserError
from jaxcnn.models import create_model
from jaxcnn.models.detector import GridOutputs, pixel_boxes
from jaxcnn.models.yolo import FIGURE_3, PRETRAINING


def tiny(**fields):
    return create_model("yolo_v1_fast", classes=3, width=0.125, widths=(16,), grid=(2, 2), **fields)


def outputs(seed, batch=2, grid=(3, 4), boxes=2, classes=3):
    rng = np.random.default_rng(seed)
    draw = lambda *shape: jnp.asarray(rng.normal(0.3, 0.5, (batch, *grid, *shape)), jnp.float32)  # noqa: E731
    return GridOutputs(draw(boxes, 4), draw(boxes), draw(classes))


def test_figure_3_has_24_convolutions_the_first_20_of_which_are_trained_before():
    layers = [layer for stage in FIGURE_3 for layer in stage]
    assert len(layers) == 24 and [layer for stage in PRETRAINING for layer in stage] == layers[:20]
    assert layers[0] == (7, 64, 2) and layers[21] == (3, 1024, 2)
    shapes = jax.eval_shape(
        lambda: create_model("yolo_v1").init_with_output(
            jax.random.key(0), jnp.zeros((1, 448, 448, 3)), train=False, method="features"
        )[0]
    )
    assert [shapes[f"stage{i}"].shape[1:] for i in range(1, 6)] == [
        (224, 224, 64),
        (112, 112, 192),
        (56, 56, 512),
        (28, 28, 1024),
        (7, 7, 1024),
    ]


def test_a_run_of_the_pretraining_net_has_the_detectors_first_layers():
    paths = {}
    for name, side in (("yolo_v1", 448), ("yolo_v1_pretraining", 224)):
        model, images = create_model(name), jnp.zeros((1, side, side, 3))
        params = jax.eval_shape(lambda model=model, images=images: model.init(jax.random.key(0), images, train=False))
        paths[name] = jax.tree.map(lambda x: x.shape, params["params"]["backbone"])
    assert paths["yolo_v1_pretraining"].items() <= paths["yolo_v1"].items()
    assert len(paths["yolo_v1_pretraining"]) == 20


def test_decoding_is_the_papers_written_as_a_loop():
    said, (height, width) = outputs(0), (60, 100)
    found = np.asarray(pixel_boxes(said, (height, width)))
    for b, row, column, p in np.ndindex(2, 3, 4, 2):
        x, y, root_w, root_h = np.asarray(said.boxes[b, row, column, p], np.float64)
        middle = ((column + x) / 4 * width, (row + y) / 3 * height)
        w, h = root_w**2 * width, root_h**2 * height
        expected = (middle[0] - w / 2, middle[1] - h / 2, middle[0] + w / 2, middle[1] + h / 2)
        np.testing.assert_allclose(found[b, row, column, p], expected, rtol=1e-5, atol=1e-4)


def test_a_negative_root_is_the_same_box():
    said = outputs(1)
    mirrored = said.replace(boxes=said.boxes * jnp.array([1, 1, -1, -1]))
    np.testing.assert_allclose(pixel_boxes(said, (60, 100)), pixel_boxes(mirrored, (60, 100)))


def test_the_score_is_confidence_times_probability_and_suppression_is_within_a_class():
    """Two equal boxes in one cell, of two classes: each class keeps one."""
    model = create_model("yolo_v1_small", classes=2, score_threshold=0.1, detections=5)
    boxes = jnp.broadcast_to(jnp.array([0.5, 0.5, 0.5, 0.5]), (1, 1, 1, 2, 4))
    said = GridOutputs(boxes, jnp.array([[[[0.9, 0.8]]]]), jnp.array([[[[0.5, 0.25]]]]))
    found = jax.tree.map(np.asarray, model.detect(said, (32, 64)))
    assert found.count.tolist() == [2] and found.classes[0].tolist() == [0, 1, -1, -1, -1]
    np.testing.assert_allclose(found.scores[0], [0.45, 0.225, 0, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(found.boxes[0, :2], [[24, 12, 40, 20]] * 2, rtol=1e-6)
    assert not found.boxes[0, 2:].any()


def test_boxes_stay_in_the_image_and_scores_in_0_to_1_whatever_a_net_says():
    wild = jax.tree.map(lambda x: 50 * (x - 0.3), outputs(2))
    found = jax.tree.map(np.asarray, create_model("yolo_v1_small", classes=3).detect(wild, (48, 64)))
    assert ((found.scores >= 0) & (found.scores <= 1)).all() and np.isfinite(found.boxes).all()
    assert (found.boxes >= 0).all() and (found.boxes <= [64, 48, 64, 48]).all() and found.count.min() > 0
    for scores, count in zip(found.scores, found.count, strict=True):
        assert (np.diff(scores[:count]) <= 0).all()


def test_dropout_and_batch_norm_are_in_training_alone_and_every_parameter_has_a_gradient():
    short = (((3, 4, 1),), ((1, 4, 1), (3, 6, 2)))
    for model, shape in (
        (tiny(norm="batch", stages=short), (16, 16, 3)),
        (create_model("yolo_v1_small", classes=3, stages=short), (16, 24, 3)),
    ):
        images = jax.random.normal(jax.random.key(1), (2, *shape))
        variables = model.init({"params": jax.random.key(0)}, images, train=False)

        def total(params, key, model=model, images=images, variables=variables):
            said, _ = model.apply(
                {**variables, "params": params},
                images,
                train=True,
                method="outputs",
                mutable=["batch_stats"],
                rngs={"dropout": jax.random.key(key)},
            )
            return sum((x**2).sum() for x in jax.tree.leaves(said))

        gradients = jax.jit(jax.grad(total), static_argnums=1)(variables["params"], 0)
        assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(gradients))
        same = [model.apply(variables, images, train=False, method="outputs") for _ in range(2)]
        assert jax.tree.all(jax.tree.map(np.array_equal, *same))


def test_wrong_fields_are_one_message():
    with pytest.raises(UserError, match="needs 64x64"):
        create_model("yolo_v1_fast").init(jax.random.key(0), jnp.zeros((1, 48, 48, 3)), train=False)
    with pytest.raises(UserError, match=r"grid has 0 classes"):
        tiny().clone(head=tiny().head.clone(classes=0)).init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)), train=False)
