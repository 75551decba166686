"""k nearest neighbours against scikit-learn on the digits and against numpy's sorting."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from jaxcnn.data.digits import Digits
from jaxcnn.errors import UserError
from jaxcnn.models.knn import KNN
from jaxcnn.tasks.classification import Classification
from jaxcnn.tasks.objective import make_evaluation_step

METRICS = {"l2": "euclidean", "l1": "manhattan", "cosine": "cosine"}


@functools.cache
def digits(split):
    """Images uint8 [N, 8, 8, 1] and labels [N]."""
    examples = [*Digits().open(split)]
    return np.stack([e["image"] for e in examples]), np.array([e["label"] for e in examples])


def vote(labels, classes):
    """The class of most votes, of equals the one whose first vote comes first."""
    labels = list(labels)
    return max(range(classes), key=lambda c: (labels.count(c), -labels.index(c) if c in labels else 0))


@pytest.mark.parametrize("distance", METRICS)
@pytest.mark.parametrize("k", [1, 3, 7])
def test_the_digits_as_scikit_learn(distance, k):
    """Distances, shares and predictions, wherever no tie leaves a choice."""
    (images, labels), (queries, truth) = digits("train"), digits("test")
    knn = KNN(classes=10, k=k, distance=distance, block=100)
    variables = knn.memorize(images, labels)
    logits = jax.jit(functools.partial(knn.apply, train=False))(variables, queries)
    assert logits.shape == (355, 10) and logits.dtype == jnp.float32
    sklearn = KNeighborsClassifier(k, metric=METRICS[distance], algorithm="brute")
    sklearn.fit(images.reshape(len(images), -1).astype(float), labels)
    flat = queries.reshape(len(queries), -1).astype(float)
    distances, _ = sklearn.kneighbors(flat, k + 1)
    shares = sklearn.predict_proba(flat)
    clear = distances[:, -1] > distances[:, -2] * (1 + 1e-6)  # no tie for the last place
    decided = clear & ((shares == shares.max(1, keepdims=True)).sum(1) == 1)  # nor in the votes
    assert decided.mean() > 0.94
    np.testing.assert_allclose(jax.nn.softmax(logits)[clear], shares[clear], atol=1e-3)
    predictions = np.argmax(logits, axis=1)
    np.testing.assert_array_equal(predictions[decided], sklearn.predict(flat)[decided])
    assert (predictions == truth).mean() > 0.95
    _, own = jax.jit(functools.partial(knn.apply, method="neighbours"))(variables, queries)
    np.testing.assert_allclose(own, distances[:, :-1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("k, right", [(1, 350), (3, 350)])
def test_the_digits_accuracy_is_scikit_learns(k, right):
    """scikit-learn gives equal votes to the lowest class, 351 right of 355 for k = 3; by our rule it has 350."""
    (images, labels), (queries, truth) = digits("train"), digits("test")
    knn = KNN(classes=10, k=k)
    logits = knn.apply(knn.memorize(images, labels), queries, train=False)
    sklearn = KNeighborsClassifier(k, algorithm="brute").fit(images.reshape(len(images), -1).astype(float), labels)
    neighbours = sklearn.kneighbors(queries.reshape(len(queries), -1).astype(float), return_distance=False)
    expected = np.array([vote(labels[row], 10) for row in neighbours])
    np.testing.assert_array_equal(np.argmax(logits, axis=1), expected)
    assert (expected == truth).sum() == right


@pytest.mark.parametrize("distance", ["l2", "l1"])
@pytest.mark.parametrize("block", [7, 20, 1000])
def test_ties_go_to_what_was_memorised_first_whatever_the_block(distance, block):
    """Few values, so that most distances tie, and every image five times with other labels."""
    rng = np.random.default_rng(0)
    images = np.tile(rng.integers(0, 3, (4, 2, 2, 1)), (5, 1, 1, 1)).astype(np.uint8)
    images = np.concatenate([images, rng.integers(0, 3, (3, 2, 2, 1)).astype(np.uint8)])
    labels = rng.integers(0, 4, len(images))
    queries = rng.integers(0, 3, (9, 2, 2, 1)).astype(np.float32)
    differences = queries[:, None] - images
    far = (differences**2 if distance == "l2" else np.abs(differences)).sum((2, 3, 4))
    for k in (1, 5, 23):
        knn = KNN(classes=4, k=k, distance=distance, block=block)
        variables = knn.memorize(images, labels)
        order = np.argsort(far, axis=1, kind="stable")[:, :k]
        places, distances = knn.apply(variables, queries, method="neighbours")
        np.testing.assert_array_equal(places, order)
        expected = np.take_along_axis(far, order, axis=1)
        np.testing.assert_allclose(distances, np.sqrt(expected) if distance == "l2" else expected, rtol=1e-6)
        logits = knn.apply(variables, queries, train=False)
        np.testing.assert_array_equal(np.argmax(logits, axis=1), [vote(labels[row], 4) for row in order])
        shares = (labels[order][:, :, None] == np.arange(4)).mean(1)
        np.testing.assert_allclose(jax.nn.softmax(logits), shares, atol=1e-3)


def test_an_image_of_zeros_is_at_cosine_distance_one():
    images = np.array([[[[0.0], [0.0]]], [[[3.0], [0.0]]], [[[-1.0], [0.0]]]])
    knn = KNN(classes=3, k=3, distance="cosine")
    places, distances = knn.apply(knn.memorize(images, [0, 1, 2]), images[:2] * 7, method="neighbours")
    np.testing.assert_array_equal(places, [[0, 1, 2], [1, 0, 2]])
    np.testing.assert_allclose(distances, [[1, 1, 1], [0, 1, 2]])


def test_float64_images_are_compared_in_float64():
    images = np.array([1.0, 1 + 1e-12])[:, None, None, None]
    knn = KNN(classes=2)
    with jax.enable_x64(True):
        logits = knn.apply(knn.memorize(images, [0, 1]), images[1:], train=False)
    assert np.argmax(logits) == 1 and logits.dtype == jnp.float32


def test_memory_is_bounded_by_the_block():
    """As XLA counts it: neither all distances nor the differences of a block are ever held."""
    knn = KNN(classes=10, k=5, block=256)
    memory = {
        "images": jax.ShapeDtypeStruct((20_000, 32, 32, 3), np.uint8),
        "labels": jax.ShapeDtypeStruct((20_000,), np.int32),
    }
    queries = jax.ShapeDtypeStruct((16, 32, 32, 3), np.float32)
    step = jax.jit(functools.partial(knn.apply, train=False)).lower({"memory": memory}, queries).compile()
    assert step.memory_analysis().temp_size_in_bytes < 1.1 * 4 * 256 * 32 * 32 * 3


def test_evaluation_takes_it_as_a_net():
    """Every training digit is its own nearest neighbour, and the loss of a right vote is nearly 0."""
    images, labels = digits("train")
    knn = KNN(classes=10)
    normalize = functools.partial(jnp.multiply, 1 / 255)
    variables = knn.memorize(normalize(images), labels)
    step = jax.jit(make_evaluation_step(Classification(), knn, normalize))
    batch = {"image": images[:50], "label": labels[:50], "valid": np.arange(50) < 40}
    sums, _ = step({}, variables, {}, batch)
    assert sums["count"] == sums["accuracy"] == 40 and sums["loss"] / 40 < 1e-4


def test_mistakes_are_answered():
    images, labels = np.zeros((4, 2, 2, 1)), np.arange(4)
    for fields, message in [
        ({"k": 2}, "k is 2; it must be odd"),
        ({"k": -1}, "must be odd"),
        ({"k": 5}, "more than the 4 images"),
        ({"distance": "cosin"}, "no distance 'cosin'; did you mean 'cosine'"),
        ({"block": 0}, "block is 0"),
    ]:
        with pytest.raises(UserError, match=message):
            KNN(classes=4, **fields).memorize(images, labels)
    knn = KNN(classes=4)
    for wrong in (labels[:3], labels + 1, labels - 1, labels / 2):
        with pytest.raises(UserError, match="labels"):
            knn.memorize(images, wrong)
    with pytest.raises(UserError, match="remembers nothing"):
        knn.apply({}, images, train=False)
    with pytest.raises(UserError, match=r"the images are \(2, 3, 1\)"):
        knn.apply(knn.memorize(images, labels), np.zeros((1, 2, 3, 1)), train=False)
    with pytest.raises(UserError, match="more than the 4 images"):  # another k than it was made for
        KNN(classes=4, k=7).apply(knn.memorize(images, labels), images, train=False)
