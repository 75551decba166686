"""Faster R-CNN with VGG-16 on Pascal VOC 2007, in approximate joint training as the released code does end to end.

Paper: Ren, He, Girshick & Sun 2015; code: github.com/rbgirshick/py-faster-rcnn (faster_rcnn_end2end.yml and
models/pascal_voc/VGG16/faster_rcnn_end2end/solver.prototxt). Photos resized to a shorter side of 600 and mirrored at
random, minus the mean color; steps of two photos (iter_size 2), 256 anchors and 128 regions of each; SGD with momentum
0.9 and weight decay 5e-4, 1e-3 for 50,000 steps and 1e-4 for 20,000, biases at twice that; conv1 and conv2 stay as in
--start; NMS 0.3 at the end.
Departures: every photo is fitted into 800x800 (`--side`) and padded by the mean color below or on the right, so that
one of 500x375 becomes 800x600, as there, and a longer one smaller; anchors may lie in the padding. Without --start all
weights are random, and all learn.
Data: VOCdevkit/VOC2007; its test split is read once, at the end. Difficult boxes are not learned.
Weights: jaxcnn import-weights vgg16 vgg16.pth --out runs/vgg16; the recipe is for weights that read 0..255 minus the
mean, as Caffe's. torchvision's read other numbers: give its own with --data.normalize.mean and --data.normalize.std.
Command: python -m jaxcnn.launch experiments/faster_rcnn_voc.py --start runs/vgg16 --workdir runs/faster_rcnn_voc
Expected: a mean average precision (voc07) of 69.9 (the paper, Table 3; four-step training); ours: not run.
"""

import jaxcnn as jc
from jaxcnn.data.voc import CLASSES

MEAN = (124, 117, 104)  # MEAN_RGB, so that the net reads zeros
FIXED = jc.Group("params/backbone/conv[12]_*", freeze=True)
NEW = ("params/rpn/*", "params/head/cls_score/*", "params/head/bbox_pred/*", "params/head/fc8/*")


def experiment(start: str | None = None, side: int = 800) -> jc.Experiment:
    size = (side, side)
    return jc.Experiment(
        model=jc.create_model("faster_rcnn_vgg16", classes=20),
        task=jc.Detection(jc.FasterRCNNLoss(), protocol="voc07", classes=CLASSES[1:]),
        data=jc.Data(
            source=jc.VOCDetection("VOCdevkit/VOC2007"),
            train_split="trainval[2%:]",
            evaluation_splits=("trainval[:2%]",),
            test_splits=("test",),
            image_shape=(*size, 3),
            augment=(jc.Fit(size), jc.HorizontalFlip(), jc.PadTo(size, value=MEAN)),
            preprocess=(jc.Fit(size), jc.PadTo(size, value=MEAN)),
            normalize=jc.MEAN_RGB,
            batch_size=2,
            evaluation_batch_size=2,
        ),
        optimizer=jc.SGD(learning_rate=1e-3, momentum=0.9, weight_decay=5e-4, decay="all"),
        groups=(*((FIXED,) if start else ()), jc.Group("*/bias", rate=2.0)),
        schedule=jc.StepDecay((jc.steps(50_000),), 0.1),
        init_from=jc.InitFrom(run=start, exclude=NEW if start else ()),
        duration=jc.steps(70_000),
        evaluate_every=jc.steps(5000),
        log_every=jc.steps(20),
        checkpoints=jc.Checkpoints(every=jc.steps(5000)),
    )
