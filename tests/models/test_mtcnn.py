"""MTCNN's trained nets from the package facenet-pytorch: each says of real photos what PyTorch says, and the search
finds a face."""

import importlib.util

import jax
import numpy as np
import pytest

from jaxcnn.errors import UserError
from jaxcnn.models import mtcnn

needs_weights = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("facenet_pytorch", "torch", "skimage")),
    reason="facenet-pytorch is not installed (pip install facenet-pytorch --no-deps): not run",
)
COUNTS = {"pnet": 6_632, "rnet": 100_178, "onet": 389_040}


@pytest.fixture(scope="module")
def variables():
    return mtcnn.mtcnn_variables()


@pytest.fixture(scope="module")
def theirs():
    from tests.torchvision_ops import empty_cuda

    if why := empty_cuda():
        pytest.skip(why)
    return pytest.importorskip("facenet_pytorch.models.mtcnn", reason="facenet-pytorch cannot be imported: not run")


def photos():
    from skimage import data

    return [data.astronaut(), data.chelsea(), data.coffee()]


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_are_counted(name):
    side = {"pnet": 12, "rnet": 24, "onet": 48}[name]
    net = mtcnn.NETS[name]
    said, variables = jax.eval_shape(lambda x: net.init_with_output(jax.random.key(0), x), np.zeros((2, side, side, 3)))
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == COUNTS[name]
    windows = (2, 1, 1) if name == "pnet" else (2,)
    assert said.boxes.shape == (*windows, 4) and said.points.shape == (*windows, 5 if name == "onet" else 0, 2)


@needs_weights
@pytest.mark.parametrize("name", COUNTS)
def test_each_net_says_of_photos_what_pytorch_says(name, variables, theirs):
    import torch

    if name == "pnet":
        windows = np.stack([photo[60:163, 170:272] for photo in photos()])  # odd by even, so that the pooling rounds up
    else:
        side = {"rnet": 24, "onet": 48}[name]
        corners = [(60, 180), (0, 0), (100, 150), (120, 200)]
        windows = [mtcnn.area_resize(p[t : t + 110, s : s + 90], (side, side)) for p in photos() for t, s in corners]
        windows = np.stack(windows)
    x = mtcnn.normalize(windows)
    said = mtcnn.NETS[name].apply(variables[name], x)
    their_net = {"pnet": theirs.PNet, "rnet": theirs.RNet, "onet": theirs.ONet}[name](pretrained=False)
    their_net.load_state_dict(torch.load(mtcnn.installed() / f"{name}.pt", weights_only=True))
    with torch.no_grad():
        boxes, *points, probability = (y.numpy() for y in their_net(torch.from_numpy(x.transpose(0, 3, 1, 2))))
    if name == "pnet":
        boxes, probability = boxes.transpose(0, 2, 3, 1), probability.transpose(0, 2, 3, 1)
    np.testing.assert_allclose(said.boxes, boxes, atol=1e-4, rtol=0)
    np.testing.assert_allclose(said.probability, probability[..., 1], atol=1e-4, rtol=0)
    assert probability[..., 1].max() > 0.9
    if name == "onet":
        np.testing.assert_allclose(said.points[..., 0], points[0][:, :5], atol=1e-4, rtol=0)
        np.testing.assert_allclose(said.points[..., 1], points[0][:, 5:], atol=1e-4, rtol=0)


@needs_weights
def test_areas_are_averaged_as_pytorch_does():
    import torch

    pixels = np.random.default_rng(0).uniform(0, 255, (37, 20, 3)).astype(np.float32)
    for size in ((24, 24), (11, 7), (37, 48)):
        found = torch.nn.functional.interpolate(torch.from_numpy(pixels.transpose(2, 0, 1))[None], size, mode="area")
        np.testing.assert_allclose(mtcnn.area_resize(pixels, size), found[0].numpy().transpose(1, 2, 0), rtol=1e-5)


@needs_weights
def test_the_search_finds_the_astronaut_where_theirs_does(variables, theirs):
    """Faces from 60 pixels, so that few sizes are compiled. From 20 on, which is theirs: docs/detection.md."""
    image = photos()[0]
    boxes, scores, points = theirs.MTCNN(min_face_size=60, device="cpu").detect(image, landmarks=True)
    found = mtcnn.find_faces(variables, image, smallest=60)
    np.testing.assert_allclose(found.boxes, np.array(boxes.tolist()), atol=0.01)
    np.testing.assert_allclose(found.scores, scores.astype(float), atol=1e-4)
    np.testing.assert_allclose(found.points, np.array(points.tolist()), atol=0.01)
    assert found.scores[0] > 0.999 and np.abs(found.boxes[0] - (181, 62, 268, 172)).max() < 5
    assert len(mtcnn.find_faces(variables, np.full((64, 64, 3), 128, np.uint8), smallest=60).boxes) == 0


def test_a_face_within_a_face_is_dropped():
    """By the share of the smaller, 1, and not by the IoU, a quarter."""
    boxes = np.array([[0.0, 0, 99, 99], [10, 10, 59, 59], [90, 90, 150, 150]])
    assert mtcnn._kept_by_smaller(boxes, np.array([0.9, 0.8, 0.7]), 0.7).tolist() == [0, 2]


def test_mistakes_are_one_message(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"takes one RGB image, uint8 \[H, W, 3\], not float64 \[4, 4, 3\]"):
        mtcnn.find_faces({}, np.zeros((4, 4, 3)))
    with pytest.raises(UserError, match="smallest is 0"):
        mtcnn.find_faces({}, np.zeros((4, 4, 3), np.uint8), smallest=0)
    pytest.importorskip("torch")
    (tmp_path / "pnet.pt").write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"pnet\.pt cannot be read as MTCNN's weights"):
        mtcnn.mtcnn_variables(tmp_path)
    monkeypatch.setattr(mtcnn.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install facenet-pytorch --no-deps"):
        mtcnn.mtcnn_variables()
