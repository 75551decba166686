"""What is published about each model: its paper, its input and the accuracy that was reported."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Entry:
    """Facts about one model of MODELS that its code does not hold."""

    input_shape: tuple[int, int, int]
    """Height, width and channels of the paper's input."""
    paper: str
    year: int | None
    top1: float | None = None
    """Accuracy in percent: ImageNet validation, unless `source` names another set; None where the source has none."""
    top5: float | None = None
    source: str = ""
    """Where top1 and top5 are from; of a segmenter its mean IoU, of a detector its mean average
    precision, in percent, the set and where they are from."""


COURSE = "course notes"
LENET = "LeCun et al., Gradient-based learning applied to document recognition"
ALEXNET = "Krizhevsky et al., ImageNet classification with deep convolutional neural networks"
OWT = "Krizhevsky, One weird trick for parallelizing convolutional neural networks"
ZFNET = "Zeiler & Fergus, Visualizing and understanding convolutional networks"
VGG = "Simonyan & Zisserman, Very deep convolutional networks for large-scale image recognition"
GOOGLENET = "Szegedy et al., Going deeper with convolutions"
INCEPTION_V3 = "Szegedy et al., Rethinking the Inception architecture for computer vision"
INCEPTION_V4 = "Szegedy et al., Inception-v4, Inception-ResNet and the impact of residual connections"
RESNET = "He et al., Deep residual learning for image recognition"
WIDE = "Zagoruyko & Komodakis, Wide residual networks"
RESNEXT = "Xie et al., Aggregated residual transformations for deep neural networks"
DENSENET = "Huang et al., Densely connected convolutional networks"
SENET = "Hu et al., Squeeze-and-excitation networks"
EFFICIENTNET = "Tan & Le, EfficientNet: rethinking model scaling for convolutional neural networks"
LITE = "Liu, EfficientNet-Lite (TensorFlow blog)"
DCN = "Dai et al., Deformable convolutional networks"
DCNV2 = "Zhu et al., Deformable ConvNets v2: more deformable, better results"
YOLO = "Redmon et al., You only look once: unified, real-time object detection"
FAST_RCNN = "Girshick, Fast R-CNN"
FASTER_RCNN = "Ren et al., Faster R-CNN: towards real-time object detection with region proposal networks"
FCN = "Long et al., Fully convolutional networks for semantic segmentation"

VGG_TABLE_3 = "paper, Table 3, S = Q = 256, dense"
TORCHVISION = "torchvision IMAGENET1K_V1"
FCN_REPOSITORY = "mean IoU {}, Pascal VOC 2011 (seg11valid), authors' repository"
FCN_TORCHVISION = "mean IoU {}, COCO val2017 with VOC's classes, torchvision COCO_WITH_VOC_LABELS_V1"
VOC_2007 = "mean average precision {}, Pascal VOC 2007, trained on 2007, paper"
FASTER_TORCHVISION = "mean average precision 37.0 (COCO's), COCO val2017, torchvision COCO_V1"
YOLO_TABLE_1 = "mean average precision {}, Pascal VOC 2007, trained on 2007 and 2012, paper, Table 1"
DENSENET_CIFAR = "authors' repository, CIFAR-10, augmented"

CATALOGUE: dict[str, Entry] = {
    "linear": Entry((28, 28, 1), COURSE, None),
    "linear_640x480": Entry((640, 480, 1), COURSE, None),
    "mlp": Entry((28, 28, 1), COURSE, None),
    "lenet5_1998": Entry((32, 32, 1), LENET, 1998),
    "lenet5": Entry((32, 32, 1), LENET, 1998),
    "lecture_simple": Entry((28, 28, 1), COURSE, None),
    "lecture_flowers": Entry((180, 180, 3), COURSE, None),
    "lecture_batchnorm": Entry((28, 28, 1), COURSE, None),
    "alexnet": Entry((227, 227, 3), ALEXNET, 2012, 59.3, 81.8, "ten crops, as Zeiler & Fergus quote it in Table 2"),
    "alexnet_single": Entry((227, 227, 3), ALEXNET, 2012),
    "alexnet_owt": Entry((224, 224, 3), OWT, 2014, 56.522, 79.066, TORCHVISION),
    "zfnet": Entry((224, 224, 3), ZFNET, 2014, 61.6, 83.5, "paper, Table 2"),
    "zfnet_wide": Entry((224, 224, 3), ZFNET, 2014, 62.5, 84.0, "paper, Table 2"),
    "vgg11": Entry((224, 224, 3), VGG, 2015, 70.4, 89.6, VGG_TABLE_3),
    "vgg11_lrn": Entry((224, 224, 3), VGG, 2015, 70.3, 89.5, VGG_TABLE_3),
    "vgg13": Entry((224, 224, 3), VGG, 2015, 71.3, 90.1, VGG_TABLE_3),
    "vgg16_c": Entry((224, 224, 3), VGG, 2015, 71.9, 90.6, VGG_TABLE_3),
    "vgg16": Entry((224, 224, 3), VGG, 2015, 73.0, 91.2, VGG_TABLE_3),
    "vgg19": Entry((224, 224, 3), VGG, 2015, 72.7, 91.0, VGG_TABLE_3),
    "vgg11_bn": Entry((224, 224, 3), VGG, 2015, 70.37, 89.81, TORCHVISION),
    "vgg13_bn": Entry((224, 224, 3), VGG, 2015, 71.586, 90.374, TORCHVISION),
    "vgg16_bn": Entry((224, 224, 3), VGG, 2015, 73.36, 91.516, TORCHVISION),
    "vgg19_bn": Entry((224, 224, 3), VGG, 2015, 74.218, 91.842, TORCHVISION),
    "googlenet": Entry((224, 224, 3), GOOGLENET, 2015, 71.0, 90.8, "Szegedy et al. 2016 (Inception-v3), single crop"),
    "googlenet_bn": Entry((224, 224, 3), GOOGLENET, 2015, 69.778, 89.53, TORCHVISION),
    "inception_v3": Entry((299, 299, 3), INCEPTION_V3, 2016, 78.8, 94.4, "paper, single crop"),
    "inception_v4": Entry((299, 299, 3), INCEPTION_V4, 2017, 80.14, 94.98, "timm inception_v4.tf_in1k"),
    "resnet18": Entry((224, 224, 3), RESNET, 2016, 69.758, 89.078, TORCHVISION),
    "resnet34": Entry((224, 224, 3), RESNET, 2016, 73.314, 91.42, TORCHVISION),
    "resnet50": Entry((224, 224, 3), RESNET, 2016, 76.13, 92.862, TORCHVISION),
    "resnet101": Entry((224, 224, 3), RESNET, 2016, 77.374, 93.546, TORCHVISION),
    "resnet152": Entry((224, 224, 3), RESNET, 2016, 78.312, 94.046, TORCHVISION),
    "resnet50_v1": Entry((224, 224, 3), RESNET, 2016, 75.3, 92.2, "authors' repository, single crop"),
    "resnet101_v1": Entry((224, 224, 3), RESNET, 2016, 76.4, 92.9, "authors' repository, single crop"),
    "resnet152_v1": Entry((224, 224, 3), RESNET, 2016, 77.0, 93.3, "authors' repository, single crop"),
    "plain18": Entry((224, 224, 3), RESNET, 2016, 72.06, None, "paper, Table 2, ten crops"),
    "plain34": Entry((224, 224, 3), RESNET, 2016, 71.46, None, "paper, Table 2, ten crops"),
    "resnet20_cifar": Entry((32, 32, 3), RESNET, 2016, 91.25, None, "paper, Table 6, CIFAR-10"),
    "resnet32_cifar": Entry((32, 32, 3), RESNET, 2016, 92.49, None, "paper, Table 6, CIFAR-10"),
    "resnet44_cifar": Entry((32, 32, 3), RESNET, 2016, 92.83, None, "paper, Table 6, CIFAR-10"),
    "resnet56_cifar": Entry((32, 32, 3), RESNET, 2016, 93.03, None, "paper, Table 6, CIFAR-10"),
    "resnet110_cifar": Entry((32, 32, 3), RESNET, 2016, 93.57, None, "paper, Table 6, CIFAR-10"),
    "wide_resnet50_2": Entry((224, 224, 3), WIDE, 2016, 78.468, 94.086, TORCHVISION),
    "resnext50_32x4d": Entry((224, 224, 3), RESNEXT, 2017, 77.618, 93.698, TORCHVISION),
    "densenet121": Entry((224, 224, 3), DENSENET, 2017, 74.434, 91.972, TORCHVISION),
    "densenet161": Entry((224, 224, 3), DENSENET, 2017, 77.138, 93.56, TORCHVISION),
    "densenet169": Entry((224, 224, 3), DENSENET, 2017, 75.6, 92.806, TORCHVISION),
    "densenet201": Entry((224, 224, 3), DENSENET, 2017, 76.896, 93.37, TORCHVISION),
    "densenet264": Entry((224, 224, 3), DENSENET, 2017, 77.9, None, "authors' repository"),
    "densenet40_k12_cifar": Entry((32, 32, 3), DENSENET, 2017, 94.76, None, DENSENET_CIFAR),
    "densenet100_bc_k12_cifar": Entry((32, 32, 3), DENSENET, 2017, 95.49, None, DENSENET_CIFAR),
    "densenet190_bc_k40_cifar": Entry((32, 32, 3), DENSENET, 2017, 96.54, None, DENSENET_CIFAR),
    "se_resnet50": Entry((224, 224, 3), SENET, 2018, 77.63, 93.64, "authors' repository, retrained"),
    "se_resnet101": Entry((224, 224, 3), SENET, 2018, 78.25, 94.28, "authors' repository, retrained"),
    "se_resnet152": Entry((224, 224, 3), SENET, 2018, 78.66, 94.46, "authors' repository, retrained"),
    "senet154": Entry((224, 224, 3), SENET, 2018, 81.32, 95.53, "authors' repository, retrained"),
    "efficientnet_b0": Entry((224, 224, 3), EFFICIENTNET, 2019, 77.692, 93.532, TORCHVISION),
    "efficientnet_b1": Entry((240, 240, 3), EFFICIENTNET, 2019, 78.642, 94.186, TORCHVISION),
    "efficientnet_b2": Entry((260, 260, 3), EFFICIENTNET, 2019, 80.608, 95.31, TORCHVISION),
    "efficientnet_b3": Entry((300, 300, 3), EFFICIENTNET, 2019, 82.008, 96.054, TORCHVISION),
    "efficientnet_b4": Entry((380, 380, 3), EFFICIENTNET, 2019, 83.384, 96.594, TORCHVISION),
    "efficientnet_b5": Entry((456, 456, 3), EFFICIENTNET, 2019, 83.444, 96.628, TORCHVISION),
    "efficientnet_b6": Entry((528, 528, 3), EFFICIENTNET, 2019, 84.008, 96.916, TORCHVISION),
    "efficientnet_b7": Entry((600, 600, 3), EFFICIENTNET, 2019, 84.122, 96.908, TORCHVISION),
    "efficientnet_lite0": Entry((224, 224, 3), LITE, 2020),
    "resnet50_dcn": Entry((224, 224, 3), DCN, 2017),
    "resnet50_dcnv2": Entry((224, 224, 3), DCNV2, 2019),
    "fcn32s_vgg16": Entry((500, 500, 3), FCN, 2015, source=FCN_REPOSITORY.format(63.6)),
    "fcn16s_vgg16": Entry((500, 500, 3), FCN, 2015, source=FCN_REPOSITORY.format(65.0)),
    "fcn8s_vgg16": Entry((500, 500, 3), FCN, 2015, source=FCN_REPOSITORY.format(65.5)),
    "fcn8s_vgg16_bn": Entry((500, 500, 3), FCN, 2015),
    "fcn32s_resnet50": Entry((500, 500, 3), FCN, 2015),
    "fcn8s_resnet50": Entry((500, 500, 3), FCN, 2015),
    "fcn_resnet50": Entry((520, 520, 3), FCN, 2015, source=FCN_TORCHVISION.format(60.5)),
    "fcn_resnet101": Entry((520, 520, 3), FCN, 2015, source=FCN_TORCHVISION.format(63.7)),
    "yolo_v1_pretraining": Entry((224, 224, 3), YOLO, 2016, None, 88.0, "paper, section 2.2, single crop"),
    "yolo_v1": Entry((448, 448, 3), YOLO, 2016, source=YOLO_TABLE_1.format(63.4)),
    "yolo_v1_fast": Entry((448, 448, 3), YOLO, 2016, source=YOLO_TABLE_1.format(52.7)),
    "yolo_v1_small": Entry((192, 256, 3), YOLO, 2016),
    "fast_rcnn_vgg16": Entry((608, 800, 3), FAST_RCNN, 2015, source=VOC_2007.format(66.9)),
    "faster_rcnn_vgg16": Entry((608, 800, 3), FASTER_RCNN, 2015, source=VOC_2007.format(69.9)),
    "faster_rcnn_small": Entry((192, 256, 3), FASTER_RCNN, 2015),
    "fasterrcnn_resnet50_fpn": Entry((800, 800, 3), FASTER_RCNN, 2015, source=FASTER_TORCHVISION),
}
