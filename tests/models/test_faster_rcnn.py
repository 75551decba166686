"""Fast and Faster R-CNN: the papers' counts, torchvision's net in every intermediate, proposals, and composition."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.errors import UserError
from jaxcnn.models import create_model
from jaxcnn.models.box_head import BoxHead, RegionOutputs
from jaxcnn.models.fpn import LEVELS, repeated
from jaxcnn.models.layers import FrozenBatchNorm
from jaxcnn.models.pretrained import from_torch
from jaxcnn.models.rcnn import RCNNOutputs
from jaxcnn.models.rpn import RPN, Proposals
from jaxcnn.runs import import_weights as importing
from tests.compilation import quick
from tests.torchvision_ops import torchvision_ops


def counted(name, **fields):
    model = create_model(name, **fields)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)), train=False))
    size = lambda tree: sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))  # noqa: E731
    return size(shapes["params"]), size(shapes["params"].get("rpn", {}))


@pytest.mark.parametrize(
    "name, fields, counts",
    [
        ("faster_rcnn_vgg16", {}, (137_078_239, 2_387_510)),
        # COCO's form of the released code: 80 classes, 12 anchors.
        ("faster_rcnn_vgg16", {"classes": 80, "sizes": ((64, 128, 256, 512),)}, (138_316_573, 2_396_744)),
        ("fasterrcnn_resnet50_fpn", {"norm": "batch"}, (41_808_406, 593_935)),  # torchvision's without weights
    ],
)
def test_parameters_of_the_released_nets_that_the_table_does_not_have(name, fields, counts):
    assert counted(name, **fields) == counts


# A net of which all layers' kinds are left, and fewer candidates, so that it runs in seconds. ResNet-50 with 91 classes
# and all candidates passes too.
FEWER = {"depth": (1, 1, 1, 1), "classes": 10, "before_nms": (200, 200), "after_nms": (100, 100)}


@functools.cache
def torchvision_net():
    """torchvision's net with frozen norms: random weights, statistics with which the signal stays as strong as it is,
    heads scaled so that probabilities are spread and boxes stay near their anchors."""
    torchvision_ops()
    torch = pytest.importorskip("torch")
    from torchvision.models import ResNet
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
    from torchvision.models.resnet import Bottleneck
    from torchvision.ops.misc import FrozenBatchNorm2d

    from tests.models.parity import calibrate, randomize

    plain = calibrate(randomize(ResNet(Bottleneck, FEWER["depth"])), (64, 64)).state_dict()
    frozen = ResNet(Bottleneck, FEWER["depth"], norm_layer=FrozenBatchNorm2d)
    limits = {"rpn_pre_nms_top_n_test": 200, "rpn_post_nms_top_n_test": 100}
    net = randomize(FasterRCNN(_resnet_fpn_extractor(frozen, 5), num_classes=11, **limits))
    body = {f"backbone.body.{key}": value for key, value in plain.items() if not key.startswith("fc.")}
    assert net.load_state_dict(body, strict=False).unexpected_keys == []
    for module in net.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.eps = 0.0  # as with the weights COCO_V1
    with torch.no_grad():
        head, predictor = net.rpn.head, net.roi_heads.box_predictor
        for layer, factor in ((head.cls_logits, 0.2), (head.bbox_pred, 0.02), (predictor.cls_score, 0.3)):
            layer.weight.mul_(factor)
        predictor.bbox_pred.weight.mul_(0.1)
    return net.double().eval()


@pytest.mark.parametrize("size", [(96, 128), (64, 160)])
def test_every_intermediate_is_torchvisions(size):
    """In float64, so that candidates whose scores nearly tie come in one order on both sides."""
    net = torchvision_net()
    import torch
    from torchvision.models.detection.image_list import ImageList

    images = np.random.default_rng(1).normal(size=(2, *size, 3))
    given = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        maps = net.backbone(given)
        sizes = [size] * len(images)
        boxes, _ = net.rpn(ImageList(given, sizes), maps)
        pooled = net.roi_heads.box_roi_pool(maps, boxes, sizes)
        logits, offsets = net.roi_heads.box_predictor(net.roi_heads.box_head(pooled))
        detections, _ = net.roi_heads(maps, boxes, sizes)

    model = create_model("fasterrcnn_resnet50_fpn", **FEWER, dtype="float64")

    @quick
    def run(variables, images):
        ends = model.apply(variables, images, train=False, method="features")
        outputs = model.apply(variables, images, train=False, method="outputs")
        return ends, outputs, model.apply(variables, outputs, size, method="detect")

    with jax.enable_x64(True):
        ends, outputs, found = run(from_torch("fasterrcnn_resnet50_fpn", net.state_dict(), **FEWER), images)

    near = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-4)
    for name, theirs in zip((*LEVELS, "p6"), maps.values(), strict=True):
        near(ends[name], theirs.permute(0, 2, 3, 1))
    assert min(len(each) for each in boxes) == 100 and min(len(each["boxes"]) for each in detections) > 50
    counts = outputs.proposals.valid.sum(1)
    assert counts.tolist() == [len(each) for each in boxes]
    first = 0
    for i, count in enumerate(counts):
        near(outputs.proposals.boxes[i, :count], boxes[i])
        near(outputs.regions.logits[i, :count], logits[first : first + count])
        near(outputs.regions.offsets[i, :count].reshape(count, -1), offsets[first : first + count])
        first += count
        kept, theirs = int(found.count[i]), detections[i]
        assert kept == len(theirs["boxes"])
        near(found.boxes[i, :kept], theirs["boxes"])
        near(found.scores[i, :kept], theirs["scores"])
        np.testing.assert_array_equal(found.classes[i, :kept] + 1, theirs["labels"])


def greedy(boxes, scores, threshold):
    """Non-maximum suppression, one box after the other."""
    kept = []
    for i in np.argsort(-scores, kind="stable"):
        first, last = np.maximum(boxes[i, :2], boxes[kept, :2]), np.minimum(boxes[i, 2:], boxes[kept, 2:])
        both = np.maximum(last - first, 0).prod(-1)
        area = lambda box: (box[..., 2:] - box[..., :2]).prod(-1)  # noqa: E731
        if not (both / (area(boxes[i]) + area(boxes[kept]) - both) > threshold).any():
            kept.append(int(i))
    return kept


def test_proposals_of_the_released_code_step_by_step():
    """proposal_layer.py, with edges in the place of last pixels: decode, clip, drop the small, sort, NMS, cut."""
    size, batch = (96, 128), 2
    rpn = RPN(before_nms=(60, 40), after_nms=(12, 7), sizes=((16, 32, 64),), min_size=20)
    rng = np.random.default_rng(0)
    maps = {"stage5": jnp.asarray(rng.normal(size=(batch, 6, 8, 5)), jnp.float32)}
    shapes = jax.eval_shape(lambda: rpn.init(jax.random.key(0), maps, size))
    draw = lambda leaf: jnp.asarray(rng.normal(0, 0.3, leaf.shape), jnp.float32)  # noqa: E731
    variables = jax.tree.map(draw, shapes)
    outputs = quick(lambda variables, maps: rpn.apply(variables, maps, size))(variables, maps)

    # The probability of an object is a softmax of two channels, of which all of "no object" come first.
    layers = variables["params"]
    padded = np.pad(maps["stage5"], [(0, 0), (1, 1), (1, 1), (0, 0)])
    windows = np.stack([padded[:, i : i + 6, j : j + 8] for i in range(3) for j in range(3)], 3)
    hidden = np.einsum("byxkc,kcd->byxd", windows, layers["conv"]["kernel"].reshape(9, 5, 5)) + layers["conv"]["bias"]
    two = np.maximum(hidden, 0) @ layers["cls_logits"]["kernel"][0, 0] + layers["cls_logits"]["bias"]
    none, some = np.exp(two[..., :9]), np.exp(two[..., 9:])
    probability = (some / (none + some)).reshape(batch, -1)
    np.testing.assert_allclose(jax.nn.sigmoid(outputs.logits), probability, rtol=1e-4, atol=1e-6)

    # The first anchor of the second position of the second row, by hand: 23 x 12 pixels (of 16 x 16, ratio 1 / 2).
    assert outputs.anchors.shape == (6 * 8 * 9, 4) and outputs.counts == (6 * 8 * 9,)
    np.testing.assert_array_equal(outputs.anchors[9 * 9], [16 + 8 - 11.5, 16 + 8 - 6, 16 + 8 + 11.5, 16 + 8 + 6])
    for train, before, after in ((True, 60, 12), (False, 40, 7)):
        found = quick(functools.partial(rpn.propose, size=size, train=train))(outputs)
        for i in range(batch):
            anchors, offsets = np.asarray(outputs.anchors), np.asarray(outputs.offsets[i])
            sides = anchors[:, 2:] - anchors[:, :2]
            middle = anchors[:, :2] + sides / 2 + offsets[:, :2] * sides
            half = sides * np.exp(offsets[:, 2:]) / 2
            boxes = np.clip(np.concatenate([middle - half, middle + half], 1), 0, [128, 96, 128, 96])
            large = ((boxes[:, 2:] - boxes[:, :2]) >= 20).all(1)
            assert not large.all()
            boxes, scores = boxes[large], probability[i][large]
            best = np.argsort(-scores, kind="stable")[:before]
            kept = best[greedy(boxes[best], scores[best], 0.7)][:after]
            count = int(found.valid[i].sum())
            assert count == len(kept) == after
            np.testing.assert_allclose(found.boxes[i, :count], boxes[kept], rtol=0, atol=1e-4)
            np.testing.assert_allclose(found.scores[i, :count], scores[kept], rtol=1e-4)


def test_the_head_on_vgg_pools_as_the_released_code_from_boxes_that_name_the_last_pixel():
    ops, rng = torchvision_ops(), np.random.default_rng(0)
    torch = pytest.importorskip("torch")
    head = BoxHead(classes=3, widths=(16, 8))
    features = rng.normal(size=(2, 9, 12, 4)).astype(np.float32)
    first = rng.uniform(0, 90, (2, 6, 2))
    boxes = np.round(np.concatenate([first, first + rng.uniform(8, 90, (2, 6, 2))], -1)).astype(np.float32)
    ends = {"stage5": jnp.asarray(features)}
    pooled = quick(head.pool)(ends, jnp.asarray(boxes))
    rows = np.concatenate([np.concatenate([np.full((6, 1), i), boxes[i] - [0, 0, 1, 1]], 1) for i in range(2)])
    given = torch.from_numpy(features.transpose(0, 3, 1, 2).copy())
    expected = ops.roi_pool(given, torch.from_numpy(rows.astype(np.float32)), 7, 1 / 16)
    np.testing.assert_array_equal(pooled.reshape(12, 7, 7, 4), expected.permute(0, 2, 3, 1))
    run = lambda: head.init_with_output(jax.random.key(0), pooled, train=False)  # noqa: E731
    outputs, variables = jax.eval_shape(run)
    assert variables["params"]["fc6"]["kernel"].shape == (7 * 7 * 4, 16)
    assert outputs.logits.shape == (2, 6, 4) and outputs.offsets.shape == (2, 6, 4, 4)


def test_detections_are_within_the_image_and_names_of_parts_are_checked(tmp_path):
    model = create_model("faster_rcnn_small", classes=2, width=0.25, detections=9, nms_threshold=0.5)
    assert model.rpn.nms_threshold == 0.5 and model.iou_threshold == 0.3 and model.head.widths == (64,)
    with pytest.raises(UserError, match="did you mean 'before_nms'"):
        create_model("faster_rcnn_small", before_mns=(1, 1))
    with pytest.raises(UserError, match="RPN has no logits 'softmx'; did you mean 'softmax'"):
        create_model("faster_rcnn_small", logits="softmx")
    with pytest.raises(UserError, match="no other library's weights are known for 'faster_rcnn_vgg16'"):
        from_torch("faster_rcnn_vgg16", {})
    with pytest.raises(UserError, match="weights of a detector are imported in Python"):
        importing.import_weights("fasterrcnn_resnet50_fpn", tmp_path / "x.pth", tmp_path / "run", None, [], {})
    regions = RegionOutputs(jnp.array([[[0.0, 3, 3], [0, 9, 0], [0, 0, 9]]]), jnp.zeros((1, 3, 3, 4)))
    boxes = jnp.array([[[-9.0, -9, 200, 200], [5, 5, 9, 5], [1, 2, 3, 4]]])
    proposals = Proposals(boxes, jnp.ones((1, 3)), jnp.array([[True, True, False]]))
    detect = quick(lambda outputs: model.apply({}, outputs, (64, 80), method="detect"))
    found = detect(RCNNOutputs(None, proposals, regions))
    # The first region is as likely of both classes; the second has no area, the third is padding.
    assert found.count.tolist() == [2] and found.classes[0, :3].tolist() == [0, 1, -1]
    np.testing.assert_array_equal(found.boxes[0, :2], [[0, 0, 80, 64]] * 2)
    np.testing.assert_allclose(found.scores[0, :2], np.exp(3) / (1 + 2 * np.exp(3)), rtol=1e-5)


def test_the_pyramid_repeats_the_nearest_of_any_size_as_torch():
    torch = pytest.importorskip("torch")
    x = np.arange(15, dtype=np.float32).reshape(1, 3, 5, 1)
    theirs = torch.nn.functional.interpolate(torch.from_numpy(x).permute(0, 3, 1, 2), size=(5, 9), mode="nearest")
    np.testing.assert_array_equal(repeated(jnp.asarray(x), (5, 9)), theirs.permute(0, 2, 3, 1))


def test_frozen_norms_are_no_parameters_and_training_leaves_them():
    norm, x = FrozenBatchNorm(epsilon=0.25), jnp.arange(8.0).reshape(2, 2, 2, 1)
    stats = {"mean": [1.0], "var": [2.0], "scale": [3.0], "bias": [4.0]}
    variables = {"batch_stats": jax.tree.map(jnp.asarray, stats, is_leaf=lambda leaf: isinstance(leaf, list))}
    assert norm.init(jax.random.key(0), x).keys() == {"batch_stats"}
    y, updated = norm.apply(variables, x, mutable=["batch_stats"])
    np.testing.assert_allclose(y, (x - 1) / 1.5 * 3 + 4, rtol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, updated, variables)
