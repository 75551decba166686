"""The networks, by name: each a Classifier, a Segmenter or a detector of backbone and head with its paper's classes.

`create_model` changes fields.

Nothing here knows of data or training: a model is a pure function of its variables and of normalised NHWC images.
"""

import dataclasses
import fnmatch
from collections.abc import Collection
from typing import Any, cast

from flax import linen as nn

from jaxcnn.errors import UserError, did_you_mean
from jaxcnn.models.alexnet import ALEXNET_HEAD, OWT_HEAD, AlexNet
from jaxcnn.models.box_head import BoxHead
from jaxcnn.models.classifier import Classifier, Outputs
from jaxcnn.models.deformable import DeformableResNet
from jaxcnn.models.densenet import DENSENET_CIFAR_HEAD, DENSENET_HEAD, DenseNet
from jaxcnn.models.densenet import TABLE_1 as DENSENET
from jaxcnn.models.detector import GridDetector
from jaxcnn.models.dilated import FCN_AUX, FCN_HEAD, DilatedResNet
from jaxcnn.models.efficientnet import B5_NORM, EFFICIENTNET_HEAD, LITE, EfficientNet
from jaxcnn.models.fcn import FCN_VGG_HEAD, FCNVGG, SkipHead, resnet_maps, vgg_maps
from jaxcnn.models.fpn import ResNetFPN
from jaxcnn.models.googlenet import GOOGLENET_AUX, GOOGLENET_BN_AUX, GOOGLENET_BN_HEAD, GOOGLENET_HEAD, GoogLeNet
from jaxcnn.models.heads import FC, GAP
from jaxcnn.models.inception_v3 import INCEPTION_V3_AUX, INCEPTION_V3_HEAD, InceptionV3
from jaxcnn.models.inception_v4 import INCEPTION_V4_HEAD, InceptionV4
from jaxcnn.models.lecture import (
    BATCH_NORM_HEAD,
    FLOWERS_HEAD,
    SIMPLE_HEAD,
    BatchNormCNN,
    FlowersCNN,
    SimpleCNN,
)
from jaxcnn.models.lenet import LENET_HEAD, RBF, LeNet, LeNet1998
from jaxcnn.models.linear import LINEAR_HEAD, Pixels
from jaxcnn.models.mlp import MLP_HEAD
from jaxcnn.models.rcnn import (
    FASTER_HEAD,
    FASTER_RPN,
    FPN_HEAD,
    FPN_RPN,
    SMALL_HEAD,
    SMALL_RPN,
    RegionDetector,
)
from jaxcnn.models.resnet import CIFAR_HEAD, RESNET_HEAD, TABLE_1, ResNet
from jaxcnn.models.segmenter import Segmenter
from jaxcnn.models.senet import SENET_154, SENET_154_HEAD, SENet
from jaxcnn.models.vgg import VGG, VGG_BN_HEAD, VGG_HEAD
from jaxcnn.models.yolo import FAST, FAST_HEAD, PRETRAINING, SMALL, YOLO_HEAD, ConvGrid, Darknet
from jaxcnn.models.zfnet import ZFNET_HEAD, ZFNet

__all__ = ["FC", "GAP", "MODELS", "Classifier", "Outputs", "Segmenter", "create_model", "list_models"]

Model = Classifier | Segmenter | GridDetector | RegionDetector

MODELS: dict[str, Model] = {
    "linear": Classifier(Pixels(), LINEAR_HEAD),
    "linear_640x480": Classifier(Pixels(), LINEAR_HEAD),
    "mlp": Classifier(Pixels(), MLP_HEAD),
    "lenet5_1998": Classifier(LeNet1998(), RBF()),
    "lenet5": Classifier(LeNet(), LENET_HEAD),
    "lecture_simple": Classifier(SimpleCNN(), SIMPLE_HEAD),
    "lecture_flowers": Classifier(FlowersCNN(), FLOWERS_HEAD),
    "lecture_batchnorm": Classifier(BatchNormCNN(), BATCH_NORM_HEAD),
    "alexnet": Classifier(AlexNet(), ALEXNET_HEAD),
    "alexnet_single": Classifier(AlexNet(groups=1, norm="none"), ALEXNET_HEAD),
    "alexnet_owt": Classifier(
        AlexNet("owt", groups=1, norm="none", kernel_init="torch_uniform", bias_init=0.0), OWT_HEAD
    ),
    "zfnet": Classifier(ZFNet(), ZFNET_HEAD),
    "zfnet_wide": Classifier(ZFNet("wide"), ZFNET_HEAD),
    "vgg11": Classifier(VGG("A"), VGG_HEAD),
    "vgg11_lrn": Classifier(VGG("A-LRN"), VGG_HEAD),
    "vgg13": Classifier(VGG("B"), VGG_HEAD),
    "vgg16_c": Classifier(VGG("C"), VGG_HEAD),
    "vgg16": Classifier(VGG("D"), VGG_HEAD),
    "vgg19": Classifier(VGG("E"), VGG_HEAD),
    "vgg11_bn": Classifier(VGG("A", norm="batch", kernel_init="he_fan_out"), VGG_BN_HEAD),
    "vgg13_bn": Classifier(VGG("B", norm="batch", kernel_init="he_fan_out"), VGG_BN_HEAD),
    "vgg16_bn": Classifier(VGG("D", norm="batch", kernel_init="he_fan_out"), VGG_BN_HEAD),
    "vgg19_bn": Classifier(VGG("E", norm="batch", kernel_init="he_fan_out"), VGG_BN_HEAD),
    "googlenet": Classifier(GoogLeNet(), GOOGLENET_HEAD, GOOGLENET_AUX),
    "googlenet_bn": Classifier(
        GoogLeNet(norm="batch", large_kernel=3, last_pool=2, kernel_init="normal_0.01"),
        GOOGLENET_BN_HEAD,
        GOOGLENET_BN_AUX,
    ),
    "inception_v3": Classifier(InceptionV3(), INCEPTION_V3_HEAD, INCEPTION_V3_AUX),
    "inception_v4": Classifier(InceptionV4(), INCEPTION_V4_HEAD),
    "resnet18": Classifier(ResNet(*TABLE_1[18]), RESNET_HEAD),
    "resnet34": Classifier(ResNet(*TABLE_1[34]), RESNET_HEAD),
    "resnet50": Classifier(ResNet(*TABLE_1[50]), RESNET_HEAD),
    "resnet101": Classifier(ResNet(*TABLE_1[101]), RESNET_HEAD),
    "resnet152": Classifier(ResNet(*TABLE_1[152]), RESNET_HEAD),
    "resnet50_v1": Classifier(ResNet(*TABLE_1[50], stride_in="1x1"), RESNET_HEAD),
    "resnet101_v1": Classifier(ResNet(*TABLE_1[101], stride_in="1x1"), RESNET_HEAD),
    "resnet152_v1": Classifier(ResNet(*TABLE_1[152], stride_in="1x1"), RESNET_HEAD),
    "plain18": Classifier(ResNet(*TABLE_1[18], shortcut="none"), RESNET_HEAD),
    "plain34": Classifier(ResNet(*TABLE_1[34], shortcut="none"), RESNET_HEAD),
    "resnet20_cifar": Classifier(ResNet("basic", (3, 3, 3), stem="3x3", shortcut="A"), CIFAR_HEAD),
    "resnet32_cifar": Classifier(ResNet("basic", (5, 5, 5), stem="3x3", shortcut="A"), CIFAR_HEAD),
    "resnet44_cifar": Classifier(ResNet("basic", (7, 7, 7), stem="3x3", shortcut="A"), CIFAR_HEAD),
    "resnet56_cifar": Classifier(ResNet("basic", (9, 9, 9), stem="3x3", shortcut="A"), CIFAR_HEAD),
    "resnet110_cifar": Classifier(ResNet("basic", (18, 18, 18), stem="3x3", shortcut="A"), CIFAR_HEAD),
    "wide_resnet50_2": Classifier(ResNet(*TABLE_1[50], inner_widths=(2, 2)), RESNET_HEAD),
    "resnext50_32x4d": Classifier(ResNet(*TABLE_1[50], groups=32, inner_widths=(2, 2)), RESNET_HEAD),
    "densenet121": Classifier(DenseNet(DENSENET[121]), DENSENET_HEAD),
    "densenet161": Classifier(DenseNet(DENSENET[161], growth=48, stem_width=96), DENSENET_HEAD),
    "densenet169": Classifier(DenseNet(DENSENET[169]), DENSENET_HEAD),
    "densenet201": Classifier(DenseNet(DENSENET[201]), DENSENET_HEAD),
    "densenet264": Classifier(DenseNet(DENSENET[264]), DENSENET_HEAD),
    "densenet40_k12_cifar": Classifier(
        DenseNet((12, 12, 12), 12, "cifar", 16, bottleneck=0, compression=1.0), DENSENET_CIFAR_HEAD
    ),
    "densenet100_bc_k12_cifar": Classifier(DenseNet((16, 16, 16), 12, "cifar", 24), DENSENET_CIFAR_HEAD),
    "densenet190_bc_k40_cifar": Classifier(DenseNet((31, 31, 31), 40, "cifar", 80), DENSENET_CIFAR_HEAD),
    "se_resnet50": Classifier(SENet(*TABLE_1[50]), RESNET_HEAD),
    "se_resnet101": Classifier(SENet(*TABLE_1[101]), RESNET_HEAD),
    "se_resnet152": Classifier(SENet(*TABLE_1[152]), RESNET_HEAD),
    "senet154": Classifier(SENet(*TABLE_1[152], **SENET_154), SENET_154_HEAD),
    "efficientnet_b0": Classifier(EfficientNet(1.0, 1.0), EFFICIENTNET_HEAD),
    "efficientnet_b1": Classifier(EfficientNet(1.0, 1.1), EFFICIENTNET_HEAD),
    "efficientnet_b2": Classifier(EfficientNet(1.1, 1.2), EFFICIENTNET_HEAD.clone(dropout=0.3)),
    "efficientnet_b3": Classifier(EfficientNet(1.2, 1.4), EFFICIENTNET_HEAD.clone(dropout=0.3)),
    "efficientnet_b4": Classifier(EfficientNet(1.4, 1.8), EFFICIENTNET_HEAD.clone(dropout=0.4)),
    "efficientnet_b5": Classifier(EfficientNet(1.6, 2.2, **B5_NORM), EFFICIENTNET_HEAD.clone(dropout=0.4)),
    "efficientnet_b6": Classifier(EfficientNet(1.8, 2.6, **B5_NORM), EFFICIENTNET_HEAD.clone(dropout=0.5)),
    "efficientnet_b7": Classifier(EfficientNet(2.0, 3.1, **B5_NORM), EFFICIENTNET_HEAD.clone(dropout=0.5)),
    "efficientnet_lite0": Classifier(EfficientNet(**LITE), EFFICIENTNET_HEAD),
    "resnet50_dcn": Classifier(DeformableResNet(), RESNET_HEAD),
    "resnet50_dcnv2": Classifier(DeformableResNet(deformable=(3, 4, 5), modulated=True), RESNET_HEAD),
    "fcn32s_vgg16": Segmenter(FCNVGG("D"), FCN_VGG_HEAD.clone(maps=vgg_maps(finest=32))),
    "fcn16s_vgg16": Segmenter(FCNVGG("D"), FCN_VGG_HEAD.clone(maps=vgg_maps(finest=16))),
    "fcn8s_vgg16": Segmenter(FCNVGG("D"), FCN_VGG_HEAD),
    "fcn8s_vgg16_bn": Segmenter(FCNVGG("D", norm="batch", kernel_init="he_fan_out"), FCN_VGG_HEAD),
    "fcn32s_resnet50": Segmenter(ResNet(*TABLE_1[50]), SkipHead(classes=21, maps=resnet_maps(finest=32))),
    "fcn8s_resnet50": Segmenter(ResNet(*TABLE_1[50]), SkipHead(classes=21, maps=resnet_maps())),
    "fcn_resnet50": Segmenter(DilatedResNet(*TABLE_1[50]), FCN_HEAD, FCN_AUX),
    "fcn_resnet101": Segmenter(DilatedResNet(*TABLE_1[101]), FCN_HEAD, FCN_AUX),
    "yolo_v1_pretraining": Classifier(Darknet(PRETRAINING), GAP(classes=1000, kernel_init="he_fan_in")),
    "yolo_v1": GridDetector(Darknet(), YOLO_HEAD),
    "yolo_v1_fast": GridDetector(Darknet(FAST), FAST_HEAD),
    "yolo_v1_small": GridDetector(Darknet(SMALL, norm="batch"), ConvGrid()),
    "fast_rcnn_vgg16": RegionDetector(VGG("D"), FASTER_HEAD),
    "faster_rcnn_vgg16": RegionDetector(VGG("D"), FASTER_HEAD, rpn=FASTER_RPN),
    "faster_rcnn_small": RegionDetector(Darknet(SMALL, norm="batch"), SMALL_HEAD, rpn=SMALL_RPN),
    "fasterrcnn_resnet50_fpn": RegionDetector(
        ResNetFPN(*TABLE_1[50]), FPN_HEAD, rpn=FPN_RPN, score_threshold=0.05, iou_threshold=0.5
    ),
}


def create_model(name: str, classes: int | None = None, **fields: Any) -> Model:
    """The model of this name.

    Args:
      name: one of list_models().
      classes: number of logits; default the paper's.
      **fields: fields of the backbone, of the heads or of the model (`head=GAP(classes=10)`, `aux={}`) to change;
        one that several share, such as `dtype`, is changed in all of them, auxiliary heads included. `width` multiplies
        the hidden layers of the head too, unless `widths` gives them. A head that is given keeps what the backbone
        has a field for, but for `dtype`.

    Raises:
      UserError: no such model or field; the message names the nearest.
    """
    if name not in MODELS:
        raise UserError(f"no model {name!r}{did_you_mean(name, MODELS) or '; jaxcnn models lists them'}")
    model = MODELS[name]
    given = {field: fields.pop(field) for field in _PARTS if field in fields and hasattr(model, field)}
    model = model.clone(**given)
    if classes is not None:
        fields["classes"] = classes
    of_regions = {part: getattr(model, part, None) for part in ("rpn", "rpn_backbone")}
    of_regions = {part: module for part, module in of_regions.items() if module is not None}
    parts = (model, model.backbone, model.head, *model.aux.values(), *of_regions.values())
    known = sorted({field for part in parts for field in _fields(part)} - set(_PARTS))
    for field in fields:
        if field not in known:
            if field in ("pretrained", "weights"):
                raise UserError(
                    f"model {name!r} has no field {field!r}: a model holds no weights. They come from a file, by "
                    f"jaxcnn.from_torch({name!r}, file), or by `jaxcnn import-weights {name} FILE --out RUN` and "
                    "--init-from.run RUN"
                )
            hint = did_you_mean(field, known) or "; there is " + ", ".join(known)
            raise UserError(f"model {name!r} has no field {field!r}{hint}")

    def changed(part: nn.Module, keeps: Collection[str] = ()) -> nn.Module:
        taken = [field for field in fields if field in _fields(part) and field not in keeps]
        return part.clone(**{field: fields[field] for field in taken})

    own = {field for field in _fields(model.backbone) if field != "dtype"}
    head = changed(model.head, keeps=own if "head" in given else ())
    if isinstance(head, FC | SkipHead | BoxHead) and "width" in fields and not {"head", "widths"} & {*given, *fields}:
        head = head.clone(widths=tuple(max(1, round(width * fields["width"])) for width in head.widths))
    aux = {end: changed(part, keeps=own if "aux" in given else ()) for end, part in model.aux.items()}
    more: dict[str, Any] = {part: changed(module) for part, module in of_regions.items()}
    return cast(Model, changed(model)).clone(backbone=changed(model.backbone), head=head, aux=aux, **more)


_PARTS = ("backbone", "head", "aux", "rpn", "rpn_backbone")


def list_models(pattern: str = "*") -> list[str]:
    """The names of the models that match a pattern such as "vgg*", sorted."""
    return sorted(fnmatch.filter(MODELS, pattern))


def _fields(module: nn.Module) -> list[str]:
    return [field.name for field in dataclasses.fields(module) if field.init and field.name not in ("parent", "name")]
