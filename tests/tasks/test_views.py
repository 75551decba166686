"""Views: crops are torchvision's, probabilities those of plain loops, dense evaluation that of every window by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn as jc
from jaxcnn import UserError
from jaxcnn.models import FC, GAP, VGG, Classifier, create_model
from jaxcnn.runs.debug import debug
from jaxcnn.runs.setup import make_plan
from jaxcnn.runs.warnings import warnings_of
from jaxcnn.tasks.views import resized
from tests.compilation import quick
from tests.nets import TinyNet
from tests.torchvision_ops import torch, torchvision_ops

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(3, 13, 10, 3)).astype(np.float32)
NET = TinyNet(classes=7, norm=False)
VARIABLES = jax.eval_shape(lambda: NET.init(jax.random.key(0), IMAGES, train=False))
VARIABLES = jax.tree.map(lambda x: RNG.normal(size=x.shape).astype(np.float32), VARIABLES)


def drawn(model, image):
    """Variables of a net for images of this shape, as large as they are likely to be in a trained one."""
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), image, train=False))
    return jax.tree.map(lambda x: (RNG.normal(size=x.shape) / np.sqrt(x.size / x.shape[-1])).astype(np.float32), shapes)


def outputs(task, labels, valid):
    batch = {"image": IMAGES, "label": jnp.asarray(labels), "valid": valid}
    return quick(lambda variables: task.outputs(NET, variables, batch))


def softmax(logits):
    power = np.exp(logits - logits.max(-1, keepdims=True))
    return power / power.sum(-1, keepdims=True)


@pytest.mark.parametrize("size", [(8, 5), (6, 7), (13, 10)])  # of (13, 10): odd and even margins, and none
def test_ten_crops_are_torchvisions_in_its_order(size):
    torchvision_ops()
    from torchvision.transforms.v2 import functional

    theirs = functional.ten_crop(torch.from_numpy(IMAGES).permute(0, 3, 1, 2), list(size))
    ours = jc.TenCrop(size).crops(jnp.asarray(IMAGES))
    assert len(ours) == len(theirs) == 10
    for our, their in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(our, their.permute(0, 2, 3, 1).numpy())


def test_probabilities_are_the_mean_over_the_views_of_plain_loops():
    net = quick(lambda view: NET.apply(VARIABLES, view[None], train=False)[0])

    def mean(cut):
        logits = [[net(view) for view in cut(image)] for image in IMAGES]
        return softmax(np.array(logits, np.float64)).mean(1)

    flips = mean(lambda image: [image, image[:, ::-1]])
    corners = [(0, 0), (0, 3), (5, 0), (5, 3), (2, 2)]  # round(2.5) and round(1.5), half to even
    cut = lambda image: [image[y : y + 8, x : x + 7] for y, x in corners]  # noqa: E731
    ten = mean(lambda image: cut(image) + cut(image[:, ::-1]))
    for views, expected in ((jc.Flips(), flips), (jc.TenCrop((8, 7)), ten)):
        task = jc.Classification(views=views)
        found = quick(lambda images, task=task: task.predict(NET, VARIABLES, images))(IMAGES)
        np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.abs(flips - ten).max() > 1e-3


def test_evaluation_counts_by_the_mean_probability_and_its_loss_is_that_ones_cross_entropy():
    task = jc.Classification(views=jc.Flips())
    labels, valid = np.array([2, 6, 0]), np.array([True, True, False])
    probabilities = np.asarray(quick(lambda images: task.predict(NET, VARIABLES, images))(IMAGES), np.float64)
    sums, records = outputs(task, labels, valid)(VARIABLES)
    assert records.keys() == {"right"} and sums["count"] == 2
    np.testing.assert_array_equal(records["right"], probabilities.argmax(-1) == labels)
    assert sums["loss"] == pytest.approx(-np.log(probabilities[[0, 1], labels[:2]]).sum(), rel=1e-5)
    assert sums["accuracy"] == (probabilities.argmax(-1) == labels)[:2].sum()
    alone, _ = outputs(jc.Classification(), labels, valid)(VARIABLES)
    assert abs(alone["loss"] - sums["loss"]) > 1e-3


def test_a_class_that_no_view_gives_a_probability_in_float32_has_a_finite_loss():
    variables = jax.tree.map(lambda x: 300 * x, VARIABLES)
    task = jc.Classification(views=jc.Flips())
    probabilities = quick(lambda variables: task.predict(NET, variables, IMAGES))(variables)
    sums, _ = outputs(task, np.argmin(probabilities, -1), np.ones(3, bool))(variables)
    assert 100 < sums["loss"] < np.inf


def vgg(grid, **head):
    head = FC(5, widths=(6, 4), names=("fc6", "fc7", "fc8"), grid=grid, dropout=0.5, **head)
    return Classifier(VGG("A", stages=2, width=0.1), head)


@pytest.mark.parametrize(("grid", "first"), [((2, 3), False), (None, True)])
def test_the_score_map_is_the_head_at_every_window(grid, first):
    """`None` flattens the map as it is, 2x2 of training images of 8 pixels."""
    height, width = grid or (2, 2)
    model, image = vgg(grid, dropout_first=first), RNG.normal(size=(2, 16, 20, 3)).astype(np.float32)
    start = image[:, : 4 * height, : 4 * width]
    variables = drawn(model, start)

    @quick
    def maps(image, start):
        final = model.apply(variables, image, train=False, method="features")["final"]
        classified = [
            model.apply(variables, final[:, y : y + height, x : x + width], train=False, method="classify")
            for y, x in np.ndindex(5 - height, 6 - width)
        ]
        score_map = model.apply(variables, image, method="score_map")
        # At training's size: one place, the logits.
        once = model.apply(variables, start, method="score_map")
        return final, classified, score_map, once, model.apply(variables, start, train=False)

    final, classified, found, once, logits = maps(image, start)
    assert final.shape[1:3] == (4, 5) and found.shape == (2, 5 - height, 6 - width, 5) and found.std() > 1e-2
    np.testing.assert_allclose(np.stack(classified, 1).reshape(found.shape), found, atol=1e-5)
    np.testing.assert_allclose(once[:, 0, 0], logits, atol=1e-5)


def test_dense_evaluation_averages_the_map_then_the_probabilities_over_sizes_and_flips():
    model = vgg((2, 2))
    images = RNG.normal(size=(2, 16, 16, 3)).astype(np.float32)
    variables = drawn(model, images)
    score_map = quick(lambda view: model.apply(variables, view, method="score_map"))
    views = []
    for size in (12, 16):
        sized = resized(jnp.asarray(images), size)
        for view in (sized, sized[:, :, ::-1]):
            views.append(softmax(np.asarray(score_map(view), np.float64).mean((1, 2))))
    task = jc.Classification(views=jc.Dense((12, 16)))
    found = quick(lambda images: task.predict(model, variables, images))(images)
    np.testing.assert_allclose(found, np.mean(views, 0), atol=1e-6)
    one = jc.Classification(views=jc.Dense(flips=False))
    np.testing.assert_allclose(quick(lambda x: one.predict(model, variables, x))(images), views[2], atol=1e-6)


def test_of_a_net_that_ends_in_global_average_pooling_dense_evaluation_is_the_net_on_the_image():
    model = Classifier(VGG("A", stages=2, width=0.1), GAP(5))
    variables = drawn(model, IMAGES[:, :12, :8])
    found, expected = quick(
        lambda images: (
            jc.Dense(flips=False).log_probabilities(model, variables, images),
            jax.nn.log_softmax(model.apply(variables, images, train=False)),
        )
    )(IMAGES)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("size", [7, 10, 23])
def test_sizes_are_pytorchs_antialiased_bilinear(size):
    torchvision_ops()
    longer = int(size * 13 / 10)
    tensor = torch.from_numpy(IMAGES).permute(0, 3, 1, 2)
    theirs = torch.nn.functional.interpolate(tensor, (longer, size), mode="bilinear", antialias=True)
    np.testing.assert_allclose(resized(jnp.asarray(IMAGES), size), theirs.permute(0, 2, 3, 1), atol=1e-5)


def experiment(views, model=None, **data):
    data = {"preprocess": (jc.Resize(9), jc.CenterCrop(8)), "batch_size": 4} | data
    source = jc.Synthetic(image_shape=(12, 12, 3), classes=7, train=20, test=11)
    shape = data.pop("image_shape", (8, 8, 3))
    return jc.Experiment(
        model or TinyNet(classes=7),
        jc.Data(shape, source, augment=(jc.RandomCrop(8),), evaluation_splits=(), **data),
        task=jc.Classification(views=views),
        duration=jc.steps(3),
    )


def test_views_that_do_not_fit_are_refused_before_anything_is_compiled():
    with pytest.raises(UserError, match=r"evaluation_shape \(8, 8, 3\): TenCrop cuts 9x9 out of .* which are 8x8"):
        make_plan(experiment(jc.TenCrop(9)))
    with pytest.raises(UserError, match=r"Dense needs a net with a map of class scores.*TinyNet"):
        make_plan(experiment(jc.Dense()))
    with pytest.raises(UserError, match="the head's window is 7x7 and the net's last map of this image 4x4"):
        make_plan(experiment(jc.Dense((8,)), create_model("vgg11", classes=7, backbone=VGG("A", stages=1, width=0.1))))
    with pytest.raises(UserError, match="size is 0"):
        jc.TenCrop(0)
    with pytest.raises(UserError, match="each one once"):
        jc.Dense((256, 256))
    with pytest.raises(UserError, match=r"task.views is .* lacks log_probabilities"):
        jc.Classification(views=jc.SGD())


def test_a_saved_run_is_evaluated_and_asked_with_views_that_it_was_not_trained_with(tmp_path, capsys, caplog):
    run = jc.train(experiment(None), tmp_path / "run", quiet=True)
    seen = run.with_views(jc.TenCrop(8), side=10)
    examples = run.experiment.data.source.open("test")
    images, labels = np.stack([examples[i]["image"] for i in range(11)]), [examples[i]["label"] for i in range(11)]
    probabilities = seen.probabilities(images)
    prepared = [jc.CenterCrop(10)(jc.Resize(10)(image, None), None) for image in images]
    crops = [
        view[y : y + 8, x : x + 8]
        for image in prepared
        for view in (image, image[:, ::-1])
        for y, x in ((0, 0), (0, 2), (2, 0), (2, 2), (1, 1))
    ]
    one = softmax(run.model.apply(run.variables, run.net.data.normalize(np.stack(crops)), train=False))
    np.testing.assert_allclose(probabilities, one.reshape(11, 10, 7).mean(1), atol=1e-5)
    figures = jc.evaluate(seen, "test")["test"]
    assert figures["count"] == 11 and figures["accuracy"] == (probabilities.argmax(-1) == labels).mean()
    assert figures["loss"] == pytest.approx(-np.log(probabilities[range(11), labels]).mean(), rel=1e-4)
    assert figures["loss"] != run.result["test"]["loss"]

    import jaxcnn.__main__ as command

    words = ["evaluate", str(tmp_path / "run"), "--split", "test", "--json", "--views", "ten-crop"]
    assert not command.main([*words, "--sides", "10"])
    import json

    assert json.loads(capsys.readouterr().out)["test"] == figures
    assert command.main([*words, "--sides", "10,12"]) == 1
    assert "--views ten-crop looks at one size" in capsys.readouterr().err
    for asked, message in (
        (("ten-crop", "--sides", "6"), "--views ten-crop --sides 6: this net, which was trained on 8x8, cannot"),
        (("dense",), "--views dense: this net, which was trained on 8x8, cannot look so: Dense needs a net with a map"),
    ):
        assert command.main([*words[:-1], *asked]) == 1
        assert message in " ".join(capsys.readouterr().err.split())
    # All ten crops of an image of the net's own size are two, which costs five times as much as two views.
    assert not command.main(words)
    two = "TenCrop cuts 8x8 out of images of 8x8: all its crops are the image and its mirror image"
    assert caplog.records[-1].message.startswith(two) and "--sides 9" in caplog.text
    plan = make_plan(experiment(jc.TenCrop(8)))
    assert [line for line in warnings_of(plan) if line.startswith(f"task.views: {two}")]
    assert not [line for line in warnings_of(make_plan(experiment(jc.TenCrop(7)))) if "TenCrop" in line]
    assert command.main(["evaluate", str(tmp_path / "run"), "--sides", "10"]) == 1


@pytest.mark.parametrize(
    ("views", "smaller"),
    [(jc.TenCrop(448), jc.TenCrop((128, 128))), (jc.Dense((512,)), jc.Flips()), (jc.Flips(), jc.Flips())],
)
def test_debug_shrinks_what_is_cut_out_with_the_images(views, smaller):
    data = jc.Data(
        (448, 448, 3),
        jc.Synthetic((512, 512, 3), classes=7),
        augment=(jc.RandomCrop(448),),
        preprocess=(jc.CenterCrop(512),),
        evaluation_shape=(512, 512, 3),
    )
    made = debug(jc.Experiment(TinyNet(classes=7), data, task=jc.Classification(views=views)))
    assert made.task.views == smaller and made.data.evaluation_shape == (128, 128, 3)
    make_plan(made)  # they fit
