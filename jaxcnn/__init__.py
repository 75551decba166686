"""jaxcnn: convolutional networks for images, from a linear classifier to EfficientNet.

Its names are imported when they are first used, so that `import jaxcnn` costs next to nothing.
"""

import importlib
import sys
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxcnn.data.box_rules import BoxRules as BoxRules
    from jaxcnn.data.coco import COCODetection as COCODetection
    from jaxcnn.data.colors import ColorJitter as ColorJitter
    from jaxcnn.data.colors import Noise as Noise
    from jaxcnn.data.colors import PCANoise as PCANoise
    from jaxcnn.data.colors import RandomErasing as RandomErasing
    from jaxcnn.data.composed import ComposedCutouts as ComposedCutouts
    from jaxcnn.data.digits import Digits as Digits
    from jaxcnn.data.examples import BrokenExample as BrokenExample
    from jaxcnn.data.few import Few as Few
    from jaxcnn.data.fields import Field as Field
    from jaxcnn.data.folder import Folder as Folder
    from jaxcnn.data.geometry import Geometry as Geometry
    from jaxcnn.data.image_labels import ImageLabels as ImageLabels
    from jaxcnn.data.jitter import EdgeJitter as EdgeJitter
    from jaxcnn.data.jitter import HSVJitter as HSVJitter
    from jaxcnn.data.label_table import LabelTable as LabelTable
    from jaxcnn.data.paired_folders import PairedFolders as PairedFolders
    from jaxcnn.data.policies import AugMix as AugMix
    from jaxcnn.data.policies import AutoAugment as AutoAugment
    from jaxcnn.data.policies import RandAugment as RandAugment
    from jaxcnn.data.policies import TrivialAugment as TrivialAugment
    from jaxcnn.data.proposals import WithProposals as WithProposals
    from jaxcnn.data.proposals import read_proposals as read_proposals
    from jaxcnn.data.proposals import write_proposals as write_proposals
    from jaxcnn.data.sampling import Balanced as Balanced
    from jaxcnn.data.selective_search import SelectiveSearch as SelectiveSearch
    from jaxcnn.data.synthetic import Synthetic as Synthetic
    from jaxcnn.data.tfds import Tfds as Tfds
    from jaxcnn.data.transforms import IMAGENET as IMAGENET
    from jaxcnn.data.transforms import MEAN_RGB as MEAN_RGB
    from jaxcnn.data.transforms import UNIT as UNIT
    from jaxcnn.data.transforms import CenterCrop as CenterCrop
    from jaxcnn.data.transforms import Fit as Fit
    from jaxcnn.data.transforms import Geometric as Geometric
    from jaxcnn.data.transforms import HorizontalFlip as HorizontalFlip
    from jaxcnn.data.transforms import Normalize as Normalize
    from jaxcnn.data.transforms import Pad as Pad
    from jaxcnn.data.transforms import PadAndCrop as PadAndCrop
    from jaxcnn.data.transforms import PadTo as PadTo
    from jaxcnn.data.transforms import RandomCrop as RandomCrop
    from jaxcnn.data.transforms import RandomResizedCrop as RandomResizedCrop
    from jaxcnn.data.transforms import Resize as Resize
    from jaxcnn.data.transforms import Rotate as Rotate
    from jaxcnn.data.transforms import ScaleJitter as ScaleJitter
    from jaxcnn.data.transforms import VerticalFlip as VerticalFlip
    from jaxcnn.data.voc import VOCDetection as VOCDetection
    from jaxcnn.data.voc import VOCSegmentation as VOCSegmentation
    from jaxcnn.data.warped import WarpedRegions as WarpedRegions
    from jaxcnn.data.warped import warp_regions as warp_regions
    from jaxcnn.errors import UserError as UserError
    from jaxcnn.experiment import Checkpoints as Checkpoints
    from jaxcnn.experiment import Data as Data
    from jaxcnn.experiment import Experiment as Experiment
    from jaxcnn.models import MODELS as MODELS
    from jaxcnn.models import create_model as create_model
    from jaxcnn.models import list_models as list_models
    from jaxcnn.models.airbench import Airbench as Airbench
    from jaxcnn.models.airbench import AirbenchHead as AirbenchHead
    from jaxcnn.models.alexnet import AlexNet as AlexNet
    from jaxcnn.models.box_head import BoxHead as BoxHead
    from jaxcnn.models.classifier import Classifier as Classifier
    from jaxcnn.models.classifier import Outputs as Outputs
    from jaxcnn.models.deformable import DeformableResNet as DeformableResNet
    from jaxcnn.models.densenet import DenseNet as DenseNet
    from jaxcnn.models.detector import Detections as Detections
    from jaxcnn.models.detector import GridDetector as GridDetector
    from jaxcnn.models.dilated import DilatedResNet as DilatedResNet
    from jaxcnn.models.dilated import FCNHead as FCNHead
    from jaxcnn.models.efficientnet import EfficientNet as EfficientNet
    from jaxcnn.models.fcn import FCNVGG as FCNVGG
    from jaxcnn.models.fcn import SkipHead as SkipHead
    from jaxcnn.models.fpn import ResNetFPN as ResNetFPN
    from jaxcnn.models.googlenet import GoogLeNet as GoogLeNet
    from jaxcnn.models.googlenet import GoogLeNetAuxiliaryHead as GoogLeNetAuxiliaryHead
    from jaxcnn.models.heads import FC as FC
    from jaxcnn.models.heads import GAP as GAP
    from jaxcnn.models.heads import HintRegressor as HintRegressor
    from jaxcnn.models.inception_v3 import InceptionV3 as InceptionV3
    from jaxcnn.models.inception_v3 import InceptionV3AuxiliaryHead as InceptionV3AuxiliaryHead
    from jaxcnn.models.inception_v4 import InceptionV4 as InceptionV4
    from jaxcnn.models.knn import KNN as KNN
    from jaxcnn.models.lecture import BatchNormCNN as BatchNormCNN
    from jaxcnn.models.lecture import FlowersCNN as FlowersCNN
    from jaxcnn.models.lecture import SimpleCNN as SimpleCNN
    from jaxcnn.models.lenet import RBF as RBF
    from jaxcnn.models.lenet import LeNet as LeNet
    from jaxcnn.models.lenet import LeNet1998 as LeNet1998
    from jaxcnn.models.linear import Pixels as Pixels
    from jaxcnn.models.localizer import Localizer as Localizer
    from jaxcnn.models.localizer import RegressionHead as RegressionHead
    from jaxcnn.models.pretrained import from_torch as from_torch
    from jaxcnn.models.rcnn import RegionDetector as RegionDetector
    from jaxcnn.models.resnet import ResNet as ResNet
    from jaxcnn.models.rpn import RPN as RPN
    from jaxcnn.models.rpn import Proposals as Proposals
    from jaxcnn.models.segmenter import Segmenter as Segmenter
    from jaxcnn.models.senet import SENet as SENet
    from jaxcnn.models.to_torch import to_torch as to_torch
    from jaxcnn.models.vgg import VGG as VGG
    from jaxcnn.models.wide_resnet import WideResNet as WideResNet
    from jaxcnn.models.yolo import ConvGrid as ConvGrid
    from jaxcnn.models.yolo import Darknet as Darknet
    from jaxcnn.models.yolo import FCGrid as FCGrid
    from jaxcnn.models.zfnet import ZFNet as ZFNet
    from jaxcnn.ops.box_coding import BoxCoder as BoxCoder
    from jaxcnn.ops.matching import Matcher as Matcher
    from jaxcnn.runs.export import export_run as export_run
    from jaxcnn.runs.export import read_weights as read_weights
    from jaxcnn.runs.run import Run as Run
    from jaxcnn.runs.run import evaluate as evaluate
    from jaxcnn.runs.run import load_run as load_run
    from jaxcnn.runs.run import predict as predict
    from jaxcnn.studies.inference_time import InferenceTime as InferenceTime
    from jaxcnn.studies.linear_probe import LinearProbe as LinearProbe
    from jaxcnn.studies.neighbours import Neighbours as Neighbours
    from jaxcnn.studies.probes import Cost as Cost
    from jaxcnn.studies.probes import Cropped as Cropped
    from jaxcnn.studies.probes import Generalization as Generalization
    from jaxcnn.studies.probes import Shift as Shift
    from jaxcnn.studies.probes import Shifted as Shifted
    from jaxcnn.studies.probes import WithoutBlocks as WithoutBlocks
    from jaxcnn.studies.rcnn import RCNN as RCNN
    from jaxcnn.studies.scale import Scale as Scale
    from jaxcnn.studies.search import GridSearch as GridSearch
    from jaxcnn.studies.search import LogUniform as LogUniform
    from jaxcnn.studies.search import RandomSearch as RandomSearch
    from jaxcnn.studies.search import SuccessiveHalving as SuccessiveHalving
    from jaxcnn.studies.search import Uniform as Uniform
    from jaxcnn.studies.study import Claim as Claim
    from jaxcnn.studies.study import Study as Study
    from jaxcnn.studies.sweep import Sweep as Sweep
    from jaxcnn.studies.tuning import Tuning as Tuning
    from jaxcnn.studies.weak_localization import SameBox as SameBox
    from jaxcnn.studies.weak_localization import WeakLocalization as WeakLocalization
    from jaxcnn.summary.summary import endpoints as endpoints
    from jaxcnn.summary.summary import summarize as summarize
    from jaxcnn.tasks.classification import Classification as Classification
    from jaxcnn.tasks.detection import Detection as Detection
    from jaxcnn.tasks.distillation import Distillation as Distillation
    from jaxcnn.tasks.localization import BoxRegression as BoxRegression
    from jaxcnn.tasks.localization import Localization as Localization
    from jaxcnn.tasks.losses import BinaryCrossEntropy as BinaryCrossEntropy
    from jaxcnn.tasks.losses import CrossEntropy as CrossEntropy
    from jaxcnn.tasks.losses import FocalLoss as FocalLoss
    from jaxcnn.tasks.mixing import CutMix as CutMix
    from jaxcnn.tasks.mixing import Mixup as Mixup
    from jaxcnn.tasks.multi_label import MultiLabel as MultiLabel
    from jaxcnn.tasks.rcnn_loss import FasterRCNNLoss as FasterRCNNLoss
    from jaxcnn.tasks.rcnn_loss import FastRCNNLoss as FastRCNNLoss
    from jaxcnn.tasks.rcnn_loss import RPNLoss as RPNLoss
    from jaxcnn.tasks.segmentation import Segmentation as Segmentation
    from jaxcnn.tasks.task import Answer as Answer
    from jaxcnn.tasks.task import Task as Task
    from jaxcnn.tasks.task import apply_training as apply_training
    from jaxcnn.tasks.task import means as means
    from jaxcnn.tasks.views import Dense as Dense
    from jaxcnn.tasks.views import Flips as Flips
    from jaxcnn.tasks.views import TenCrop as TenCrop
    from jaxcnn.tasks.yolo_loss import YOLOLoss as YOLOLoss
    from jaxcnn.train.averages import EMA as EMA
    from jaxcnn.train.averages import SWA as SWA
    from jaxcnn.train.duration import Duration as Duration
    from jaxcnn.train.duration import epochs as epochs
    from jaxcnn.train.duration import examples as examples
    from jaxcnn.train.duration import steps as steps
    from jaxcnn.train.early_stopping import EarlyStopping as EarlyStopping
    from jaxcnn.train.groups import Group as Group
    from jaxcnn.train.init_from import InitFrom as InitFrom
    from jaxcnn.train.mesh import Parallel as Parallel
    from jaxcnn.train.optimizers import LAMB as LAMB
    from jaxcnn.train.optimizers import LARS as LARS
    from jaxcnn.train.optimizers import SAM as SAM
    from jaxcnn.train.optimizers import SGD as SGD
    from jaxcnn.train.optimizers import Adam as Adam
    from jaxcnn.train.optimizers import Optax as Optax
    from jaxcnn.train.optimizers import RMSProp as RMSProp
    from jaxcnn.train.schedules import Constant as Constant
    from jaxcnn.train.schedules import Cosine as Cosine
    from jaxcnn.train.schedules import Exponential as Exponential
    from jaxcnn.train.schedules import OneCycle as OneCycle
    from jaxcnn.train.schedules import Plateau as Plateau
    from jaxcnn.train.schedules import Polynomial as Polynomial
    from jaxcnn.train.schedules import Rising as Rising
    from jaxcnn.train.schedules import StepDecay as StepDecay

_FROM = {
    "jaxcnn.data.box_rules": ("BoxRules",),
    "jaxcnn.data.coco": ("COCODetection",),
    "jaxcnn.data.colors": ("ColorJitter", "Noise", "PCANoise", "RandomErasing"),
    "jaxcnn.data.jitter": ("EdgeJitter", "HSVJitter"),
    "jaxcnn.data.composed": ("ComposedCutouts",),
    "jaxcnn.data.few": ("Few",),
    "jaxcnn.data.digits": ("Digits",),
    "jaxcnn.data.examples": ("BrokenExample",),
    "jaxcnn.data.fields": ("Field",),
    "jaxcnn.data.folder": ("Folder",),
    "jaxcnn.data.geometry": ("Geometry",),
    "jaxcnn.data.image_labels": ("ImageLabels",),
    "jaxcnn.data.label_table": ("LabelTable",),
    "jaxcnn.data.paired_folders": ("PairedFolders",),
    "jaxcnn.data.policies": ("AugMix", "AutoAugment", "RandAugment", "TrivialAugment"),
    "jaxcnn.data.proposals": ("WithProposals", "read_proposals", "write_proposals"),
    "jaxcnn.data.selective_search": ("SelectiveSearch",),
    "jaxcnn.data.sampling": ("Balanced",),
    "jaxcnn.data.synthetic": ("Synthetic",),
    "jaxcnn.data.tfds": ("Tfds",),
    "jaxcnn.data.transforms": (
        "IMAGENET",
        "MEAN_RGB",
        "UNIT",
        "CenterCrop",
        "Fit",
        "HorizontalFlip",
        "Geometric",
        "Normalize",
        "PadTo",
        "Pad",
        "PadAndCrop",
        "RandomCrop",
        "RandomResizedCrop",
        "Resize",
        "Rotate",
        "ScaleJitter",
        "VerticalFlip",
    ),
    "jaxcnn.data.voc": ("VOCDetection", "VOCSegmentation"),
    "jaxcnn.data.warped": ("WarpedRegions", "warp_regions"),
    "jaxcnn.errors": ("UserError",),
    "jaxcnn.experiment": (
        "Checkpoints",
        "Data",
        "Experiment",
    ),
    "jaxcnn.models": (
        "MODELS",
        "create_model",
        "list_models",
    ),
    "jaxcnn.models.airbench": ("Airbench", "AirbenchHead"),
    "jaxcnn.models.alexnet": ("AlexNet",),
    "jaxcnn.models.box_head": ("BoxHead",),
    "jaxcnn.models.classifier": (
        "Classifier",
        "Outputs",
    ),
    "jaxcnn.models.deformable": ("DeformableResNet",),
    "jaxcnn.models.densenet": ("DenseNet",),
    "jaxcnn.models.detector": ("Detections", "GridDetector"),
    "jaxcnn.models.dilated": (
        "DilatedResNet",
        "FCNHead",
    ),
    "jaxcnn.models.efficientnet": ("EfficientNet",),
    "jaxcnn.models.fcn": (
        "FCNVGG",
        "SkipHead",
    ),
    "jaxcnn.models.fpn": ("ResNetFPN",),
    "jaxcnn.models.googlenet": (
        "GoogLeNet",
        "GoogLeNetAuxiliaryHead",
    ),
    "jaxcnn.models.heads": (
        "FC",
        "GAP",
        "HintRegressor",
    ),
    "jaxcnn.models.inception_v3": (
        "InceptionV3",
        "InceptionV3AuxiliaryHead",
    ),
    "jaxcnn.models.inception_v4": ("InceptionV4",),
    "jaxcnn.models.knn": ("KNN",),
    "jaxcnn.models.lecture": (
        "BatchNormCNN",
        "FlowersCNN",
        "SimpleCNN",
    ),
    "jaxcnn.models.lenet": (
        "RBF",
        "LeNet",
        "LeNet1998",
    ),
    "jaxcnn.models.linear": ("Pixels",),
    "jaxcnn.models.localizer": ("Localizer", "RegressionHead"),
    "jaxcnn.models.pretrained": ("from_torch",),
    "jaxcnn.models.rcnn": ("RegionDetector",),
    "jaxcnn.models.resnet": ("ResNet",),
    "jaxcnn.models.rpn": ("RPN", "Proposals"),
    "jaxcnn.models.segmenter": ("Segmenter",),
    "jaxcnn.models.senet": ("SENet",),
    "jaxcnn.models.to_torch": ("to_torch",),
    "jaxcnn.models.vgg": ("VGG",),
    "jaxcnn.models.wide_resnet": ("WideResNet",),
    "jaxcnn.models.yolo": ("ConvGrid", "Darknet", "FCGrid"),
    "jaxcnn.models.zfnet": ("ZFNet",),
    "jaxcnn.ops.box_coding": ("BoxCoder",),
    "jaxcnn.ops.matching": ("Matcher",),
    "jaxcnn.runs.export": ("export_run", "read_weights"),
    "jaxcnn.runs.run": (
        "Run",
        "evaluate",
        "load_run",
        "predict",
    ),
    "jaxcnn.studies.inference_time": ("InferenceTime",),
    "jaxcnn.studies.linear_probe": ("LinearProbe",),
    "jaxcnn.studies.neighbours": ("Neighbours",),
    "jaxcnn.studies.probes": (
        "Cost",
        "Cropped",
        "Generalization",
        "Shift",
        "Shifted",
        "WithoutBlocks",
    ),
    "jaxcnn.studies.rcnn": ("RCNN",),
    "jaxcnn.studies.scale": ("Scale",),
    "jaxcnn.studies.search": ("GridSearch", "LogUniform", "RandomSearch", "SuccessiveHalving", "Uniform"),
    "jaxcnn.studies.sweep": ("Sweep",),
    "jaxcnn.studies.study": (
        "Claim",
        "Study",
    ),
    "jaxcnn.studies.tuning": ("Tuning",),
    "jaxcnn.studies.weak_localization": ("SameBox", "WeakLocalization"),
    "jaxcnn.summary.summary": (
        "endpoints",
        "summarize",
    ),
    "jaxcnn.tasks.classification": ("Classification",),
    "jaxcnn.tasks.detection": ("Detection",),
    "jaxcnn.tasks.distillation": ("Distillation",),
    "jaxcnn.tasks.localization": ("BoxRegression", "Localization"),
    "jaxcnn.tasks.losses": ("BinaryCrossEntropy", "CrossEntropy", "FocalLoss"),
    "jaxcnn.tasks.mixing": ("CutMix", "Mixup"),
    "jaxcnn.tasks.multi_label": ("MultiLabel",),
    "jaxcnn.tasks.rcnn_loss": ("FastRCNNLoss", "FasterRCNNLoss", "RPNLoss"),
    "jaxcnn.tasks.task": ("Answer", "Task", "apply_training", "means"),
    "jaxcnn.tasks.segmentation": ("Segmentation",),
    "jaxcnn.tasks.views": ("Dense", "Flips", "TenCrop"),
    "jaxcnn.tasks.yolo_loss": ("YOLOLoss",),
    "jaxcnn.train.duration": (
        "Duration",
        "epochs",
        "examples",
        "steps",
    ),
    "jaxcnn.train.early_stopping": ("EarlyStopping",),
    "jaxcnn.train.groups": ("Group",),
    "jaxcnn.train.init_from": ("InitFrom",),
    "jaxcnn.train.mesh": ("Parallel",),
    "jaxcnn.train.optimizers": (
        "LAMB",
        "LARS",
        "SGD",
        "Adam",
        "Optax",
        "RMSProp",
        "SAM",
    ),
    "jaxcnn.train.schedules": (
        "Constant",
        "Cosine",
        "Exponential",
        "OneCycle",
        "Plateau",
        "Polynomial",
        "Rising",
        "StepDecay",
    ),
    "jaxcnn.train.averages": ("EMA", "SWA"),
}
_MODULES = {name: module for module, names in _FROM.items() for name in names}

__all__ = [*_MODULES, "train"]  # train is the package, which can be called: jaxcnn/train/__init__.py


def __getattr__(name: str) -> Any:
    if name == "train":
        return importlib.import_module("jaxcnn.train")
    if name not in _MODULES:
        raise AttributeError(f"module 'jaxcnn' has no attribute {name!r}")
    globals()[name] = value = getattr(_imported(_MODULES[name]), name)
    return value


def _imported(name: str) -> ModuleType:
    """The module, imported in a thread of its own if it is not there yet.

    A name may first be used while Flax calls a net, and Flax keeps in a thread-local which one: the heads that
    jaxcnn.models makes when it is imported would become parts of that net.
    """
    if name in sys.modules:
        return importlib.import_module(name)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(importlib.import_module, name).result()


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
