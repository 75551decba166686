"""Fast and Faster R-CNN: the papers' counts, torchvision's net in every intermediate, proposals, and composition."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.models import create_model
from jaxcnn.models.fpn import LEVELS
from jaxcnn.models.pretrained import from_torch
from tests.torchvision_ops import torchvision_ops


def counted(name, **fields):
    model = create_model(name, **fields)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)), train=False))
    size = lambda tree: sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))  # noqa: E731
    return size(shapes["params"]), size(shapes["params"].get("rpn", {}))


@pytest.mark.parametrize(
    "name, fields, counts",
    [
        ("fast_rcnn_vgg16", {}, (134_690_729, 0)),
        ("faster_rcnn_vgg16", {}, (137_078_239, 2_387_510)),
        # COCO's form of the released code: 80 classes, 12 anchors.
        ("faster_rcnn_vgg16", {"classes": 80, "sizes": ((64, 128, 256, 512),)}, (138_316_573, 2_396_744)),
        ("fasterrcnn_resnet50_fpn", {}, (41_755_286, 593_935)),  # torchvision's num_params
        ("fasterrcnn_resnet50_fpn", {"norm": "batch"}, (41_808_406, 593_935)),
    ],
)
def test_parameters_of_the_released_nets(name, fields, counts):
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

    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
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
