"""R-CNN: machines with hard negatives, the regression of boxes, and both on a net's features of painted scenes."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from sklearn.linear_model import Ridge
from sklearn.svm import LinearSVC

import jaxcnn as jc
from jaxcnn.data.warped import regions_of
from jaxcnn.metrics.detections import overlaps
from jaxcnn.studies import region_svms
from jaxcnn.studies.rcnn import RCNN, WAYS, RCNNDetector, by_class, own_classes, seer, thinned
from jaxcnn.studies.region_svms import BoxRegressor, RegionFeatures, SVMs, fit_boxes, fit_svms, scale_to
from tests.compilation import quick

SCENES = jc.Synthetic((48, 64, 3), classes=2, train=12, test=8, parts=("boxes", "proposals"))
SOURCE = jc.WarpedRegions(SCENES, size=16, padding=2)


def made_up(photos=6, regions=80, size=5, noise=0.4, seed=0):
    """Regions of two classes and of none, that a machine can tell apart, of a mean norm of about 20."""
    rng = np.random.default_rng(seed)
    middles = rng.normal(0, 9, (3, size))
    found = []
    for _ in range(photos):
        kinds = rng.integers(0, 3, regions)
        features = (middles[kinds] + rng.normal(0, 9 * noise, (regions, size))).astype(np.float32)
        found.append(RegionFeatures(features, np.eye(3)[kinds][:, :2], np.where(kinds == 2, -1, kinds)))
    return found


def direct(positives, negatives):
    machine = LinearSVC(
        C=1e-3, loss="hinge", class_weight={1: 2.0}, intercept_scaling=10.0, random_state=0, max_iter=10_000
    )
    machine.fit(np.concatenate([positives, negatives]), [1] * len(positives) + [0] * len(negatives))
    return machine.coef_[0], machine.intercept_[0]


def objective(weights, bias, positives, negatives):
    """As rcnn_train.m prints it."""
    slack = (
        2 * np.maximum(0, 1 - positives @ weights - bias).sum() + np.maximum(0, 1 + negatives @ weights + bias).sum()
    )
    return 1e-3 * slack + weights @ weights / 2 + (bias / 10) ** 2 / 2


def test_one_photo_is_a_plain_machine():
    (photo,) = made_up(photos=1)
    svms = fit_svms([photo], 2)
    for kind in range(2):
        weights, bias = direct(photo.features[photo.classes == kind], photo.features[photo.overlaps[:, kind] < 0.3])
        np.testing.assert_allclose(svms.weights[:, kind], weights, rtol=1e-5)
        assert svms.bias[kind] == pytest.approx(bias, rel=1e-5)


@pytest.mark.parametrize("retrain", [10, 2000])
def test_hard_negatives_give_the_machine_of_all(retrain, monkeypatch):
    monkeypatch.setattr(region_svms, "RETRAIN", retrain)
    photos = made_up(noise=0.2)
    svms = fit_svms(photos, 2)
    features, overlap = np.concatenate([p.features for p in photos]), np.concatenate([p.overlaps for p in photos])
    kinds, scores = np.concatenate([p.classes for p in photos]), svms.scores(features)
    for kind in range(2):
        positives, negatives = features[kinds == kind], features[overlap[:, kind] < 0.3]
        best = objective(*direct(positives, negatives), positives, negatives)
        assert objective(svms.weights[:, kind], svms.bias[kind], positives, negatives) == pytest.approx(best, rel=0.02)
        assert scores[kinds == kind, kind].min() > scores[overlap[:, kind] < 0.3, kind].max()


def test_easy_negatives_never_reach_a_machine(monkeypatch):
    """After the first photo, which has a few near ones, the others' are far on their side."""
    seen = []
    monkeypatch.setattr(LinearSVC, "fit", lambda self, x, y, fit=LinearSVC.fit: seen.append(len(x)) or fit(self, x, y))
    near = RegionFeatures(np.float32([[10, 0], [-10, 0], [-9, 1]]), np.array([[1.0], [0], [0]]), np.array([0, -1, -1]))
    far = RegionFeatures(np.float32([[-90, 0]] * 50 + [[8, 0]]), np.zeros((51, 1)), np.full(51, -1))
    fit_svms([near, far], 1, cost=1.0)
    assert seen == [3, 4]  # the hard one alone


def test_what_lies_between_is_not_used():
    photos = made_up()
    strange = RegionFeatures(np.full((9, 5), 50, np.float32), np.full((9, 2), 0.4), np.full(9, -1))
    one, other = fit_svms(photos, 2), fit_svms([*photos[:3], strange, *photos[3:]], 2)
    np.testing.assert_array_equal(one.weights, other.weights)
    wider = [photo._replace(overlaps=np.c_[photo.overlaps, np.zeros(len(photo.overlaps))]) for photo in photos]
    nothing = fit_svms(wider, 3)  # the third has no object
    assert nothing.bias[2] == -np.inf and np.isfinite(nothing.scores(photos[0].features)[:, :2]).all()


def test_boxes_are_those_of_ridge_regression_on_whitened_offsets():
    rng = np.random.default_rng(0)
    features = rng.normal(0, 3, (70, 6))
    offsets = features @ rng.normal(0, 0.1, (6, 4)) + [0.2, -0.1, 0.3, 0] + rng.normal(0, 0.05, (70, 4))
    fitted = fit_boxes(features, offsets, penalty=50.0)
    centered = offsets - offsets.mean(0)
    root = scipy.linalg.sqrtm(centered.T @ centered / 70 + 0.001 * np.eye(4)).real
    ridge = Ridge(50.0, fit_intercept=False).fit(np.c_[features, np.ones(70)], centered @ np.linalg.inv(root))
    expected = ridge.predict(np.c_[features, np.ones(70)]) @ root + offsets.mean(0)
    np.testing.assert_allclose(fitted.offsets(features), expected, atol=1e-9)
    exact = fit_boxes(features, offsets, penalty=1e-6).offsets(features)
    assert np.abs(exact - offsets).mean() < 0.06 < np.abs(fitted.offsets(features * 0) - offsets).mean()
    with pytest.raises(ValueError, match="no pair"):
        fit_boxes(features[:0], offsets[:0])


def test_features_are_scaled_to_a_mean_norm():
    features = np.random.default_rng(0).normal(0, 3, (40, 6))
    scaled = scale_to(20.0, features) * features
    assert np.linalg.norm(scaled, axis=1).mean() == pytest.approx(20) and scale_to(20.0, np.zeros((2, 3))) == 1


def test_what_overlaps_a_better_one_of_its_class_is_gone():
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 30, (120, 2, 2))
    boxes, scores = np.concatenate([low, low + rng.uniform(3, 20, low.shape)], -1), rng.normal(size=(120, 2))
    scores[:, 1] = np.where(rng.random(120) < 0.5, -np.inf, scores[:, 1])
    found = thinned(scores, boxes, 0.3)
    for kind in range(2):
        kept = []
        for row in np.argsort(-scores[:, kind], kind="stable")[:100]:
            box = boxes[row, kind].astype(np.float32)[None].astype(float)
            if np.isfinite(scores[row, kind]) and all(overlaps(box, boxes[k, kind][None])[0, 0] <= 0.3 for k in kept):
                kept.append(row)
        mine = found["classes"] == kind
        np.testing.assert_allclose(found["scores"][mine], scores[kept, kind], rtol=1e-6)
        np.testing.assert_allclose(found["boxes"][mine], boxes[kept, kind], rtol=1e-6)
    few = thinned(scores[:3], boxes[:3], 0.3)
    assert 0 < len(few["scores"]) <= 6


def test_each_way_has_its_own_scores_and_boxes():
    """Two proposals, two classes, features that are their own scores; class 0 moves its boxes to the right."""
    svms = SVMs(np.float32([[1, 0], [0, 1]]), np.float32([0, -np.inf]))
    shift = BoxRegressor(np.zeros((3, 4)), np.array([0.5, 0, 0, 0]), np.eye(4))
    detector = RCNNDetector(RCNN(layer="a", box_layer="a"), svms, 2.0, [shift, None], 1.0)
    seen = {"a": np.float32([[3, 5], [-1, 7]]), "probabilities": np.float32([[0.1, 0.9, 0], [0.2, 0.1, 0.7]])}
    boxes = np.float32([[0, 0, 10, 10], [20, 0, 40, 10]])
    found = detector.detect(seen, boxes, (10, 45))
    assert found["SVMs"]["scores"].tolist() == [6, -2] and found["SVMs"]["classes"].tolist() == [0, 0]
    assert found["SVMs"]["boxes"].tolist() == boxes.tolist()
    np.testing.assert_allclose(found["SVMs and boxes"]["boxes"], [[5, 0, 15, 10], [30, 0, 45, 10]], atol=1e-5)
    by_softmax = {
        (k, round(float(s), 3)) for k, s in zip(*(found["softmax"][n] for n in ("classes", "scores")), strict=True)
    }
    assert by_softmax == {(0, 0.9), (1, 0.7), (0, 0.1), (1, 0.0)}


def test_objects_come_before_proposals_and_every_class_has_its_overlap():
    regions = regions_of(scenes := SCENES.open("train"), scenes[1])
    scene = SCENES.open("train")[1]
    count = len(scene["boxes"])
    assert regions.objects == count and own_classes(regions)[:count].tolist() == scene["classes"].tolist()
    assert (own_classes(regions)[count:] == -1).all()
    shares = by_class(regions, 2)
    for kind in range(2):
        of_kind = scene["boxes"][scene["classes"] == kind]
        expected = overlaps(regions.boxes.astype(float), of_kind.astype(float)).max(1, initial=0)
        np.testing.assert_allclose(shares[:, kind], expected)


@pytest.fixture(scope="module")
def net():
    """A narrow classifier with random weights: colors come through."""
    model = jc.Classifier(
        backbone=jc.Darknet((((3, 8, 2),), ((3, 12, 1),)), norm="none"),
        head=jc.FC(classes=3, widths=(24,), names=("fc7", "fc8")),
    )
    variables = quick(lambda: model.init(jax.random.key(1), jnp.zeros((1, 16, 16, 3)), train=False))()
    data = jc.Data((16, 16, 3), source=SOURCE, train_split="train", test_splits=("test",))
    return types.SimpleNamespace(model=model, variables=variables, data=data)


def test_features_are_those_of_the_net(net):
    see = seer(net.model, net.variables, net.data, SOURCE, {"fc7", "final"})
    scene = SCENES.open("test")[0]
    seen = see(scene["image"], scene["proposals"])
    crops = net.data.normalize(jnp.asarray(SOURCE.warp(scene["image"], scene["proposals"])))
    final = net.model.apply(net.variables, crops, train=False, method="features")["final"]
    flat = np.asarray(final).reshape(len(final), -1)
    dense = net.variables["params"]["head"]["fc7"]
    hidden = np.maximum(flat @ np.asarray(dense["kernel"]) + np.asarray(dense["bias"]), 0)
    np.testing.assert_allclose(seen["final"], flat, atol=1e-4)
    np.testing.assert_allclose(seen["fc7"], hidden, atol=1e-4)
    logits = np.asarray(net.model.apply(net.variables, crops, train=False))
    np.testing.assert_allclose(seen["probabilities"], jax.nn.softmax(logits), atol=1e-5)
    with pytest.raises(jc.UserError, match="the net makes no 'fc6'; did you mean 'fc7'"):
        seer(net.model, net.variables, net.data, SOURCE, {"fc6", "fc7"})(scene["image"], scene["proposals"])


def test_a_machine_on_a_nets_features_finds_what_is_painted(net):
    """The proposals have the objects; random weights keep their colors, and a head without training knows nothing."""
    experiment = jc.Experiment(model=net.model, data=net.data)
    state = types.SimpleNamespace(params=net.variables["params"], stats={})
    probe = RCNN(cost=0.03, penalty=10.0)
    found = probe.measure(types.SimpleNamespace(experiment=experiment, state=state))
    assert [*found] == [*probe.metrics] == [*(f"voc07_map of {way}" for way in WAYS), "recall_50", "recall_70"]
    assert found["recall_50"] == found["recall_70"] == 1
    by_boxes, by_svms, by_softmax = (found[f"voc07_map of {way}"] for way in WAYS)
    assert by_boxes > by_svms + 0.02 and by_svms > 0.7 > 0.45 > by_softmax


def test_mistakes_are_named(net):
    plain = jc.Experiment(model=net.model, data=jc.Data((48, 64, 3), source=SCENES))
    run = types.SimpleNamespace(experiment=plain, state=types.SimpleNamespace(params={}, stats={}))
    with pytest.raises(jc.UserError, match="trained on WarpedRegions, not a Classifier on Synthetic"):
        RCNN().measure(run)
    with pytest.raises(jc.UserError, match=r"RCNN.protocol is 'voc7'"):
        RCNN(protocol="voc7")
