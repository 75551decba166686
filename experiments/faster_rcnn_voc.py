"""Faster R-CNN with VGG-16 on Pascal VOC 2007: approximate joint training, or the paper's four steps.

Paper: Ren, He, Girshick & Sun 2015, section 3.2; code: github.com/rbgirshick/py-faster-rcnn
(models/pascal_voc/VGG16/faster_rcnn_end2end and faster_rcnn_alt_opt, tools/train_faster_rcnn_alt_opt.py). Photos
resized to a shorter side of 600 and mirrored at random, minus the mean color; SGD with momentum 0.9 and weight decay
5e-4, biases at twice the rate of 1e-3, which falls to 1e-4; conv1 and conv2 stay as in --start; NMS 0.3 at the end.

| --step | what learns | --start | photos a step | steps at 1e-3, at 1e-4 |
|---|---|---|---|---|
| joint | all, 256 anchors and 128 regions of each photo | VGG-16 | 2 (iter_size) | 50,000, 20,000 |
| 1 | the RPN, with a backbone of its own | VGG-16 | 1 | 60,000, 20,000 |
| 2 | the detector, with its backbone, on the RPN's proposals | the run of step 1 | 2 | 30,000, 10,000 |
| 3 | the RPN's own layers anew, on the detector's backbone | the run of step 2 | 1 | 60,000, 20,000 |
| 4 | the detector's own layers, on the new proposals | the run of step 3 | 2 | 30,000, 10,000 |

Departures: every photo is fitted into 800x800 (`--side`) and padded by the mean color below or on the right, so that
one of 500x375 becomes 800x600, as there, and a longer one smaller; anchors may lie in the padding. Without --start all
weights are random, and conv1 and conv2 learn. In steps 2 and 4 proposals are made of the photo as it is mirrored, as in
the authors' MATLAB code, the best 2,000 of 12,000 (of all, there); step 4 goes on with cls_score and bbox_pred of step
2, as the paper says (new ones, there). The mean average precision of step 1 is that of a head that knows nothing.
Data: VOCdevkit/VOC2007; its test split is read once, at the end. Difficult boxes are not learned.
Weights: jaxcnn import-weights vgg16 vgg16.pth --out runs/vgg16; the recipe is for weights that read 0..255 minus the
mean, as Caffe's. torchvision's read other numbers: give its own with --data.normalize.mean and --data.normalize.std.
Command: python -m jaxcnn.launch experiments/faster_rcnn_voc.py --start runs/vgg16 --workdir runs/faster_rcnn_voc
or with --step 1 --start runs/vgg16 --workdir runs/rpn1, --step 2 --start runs/rpn1 --workdir runs/detector2, and so on.
Expected: a mean average precision (voc07) of 69.9 (the paper, Table 3; four steps), 68.5 after step 2; ours: not run.
"""

from typing import Literal

import jaxcnn as jc
from jaxcnn.data.voc import CLASSES

MEAN = (124, 117, 104)  # MEAN_RGB, so that the net reads zeros
NEW = ("params/rpn/*", "params/head/cls_score/*", "params/head/bbox_pred/*", "params/head/fc8/*")
OWN = (("params/backbone", "params/backbone"), ("params/backbone", "params/rpn_backbone"))  # the RPN has one as well
FROZEN = {
    "joint": ("params/backbone/conv[12]_*",),
    "1": ("params/rpn_backbone/conv[12]_*", "params/backbone/*", "params/head/*"),
    "2": ("params/backbone/conv[12]_*", "params/rpn_backbone/*", "params/rpn/*"),
    "3": ("params/backbone/*", "params/head/*"),
    "4": ("params/backbone/*", "params/rpn/*"),
}


def experiment(
    start: str | None = None, side: int = 800, step: Literal["joint", "1", "2", "3", "4"] = "joint"
) -> jc.Experiment:
    size = (side, side)
    of_rpn, of_detector = step in ("1", "3"), step in ("2", "4")
    criterion = jc.RPNLoss() if of_rpn else jc.FasterRCNNLoss()
    if of_detector:
        criterion = jc.FastRCNNLoss(matcher=jc.Matcher(0.5, (0.0, 0.5)))  # faster_rcnn_alt_opt.yml
    own = {"rpn_backbone": jc.VGG("D")} if step in ("1", "2") else {}
    at_once = 1 if of_rpn else 2
    high, low = (60_000, 20_000) if of_rpn else (30_000, 10_000) if of_detector else (50_000, 20_000)
    weights = {
        "joint": jc.InitFrom(start, exclude=NEW),
        "1": jc.InitFrom(start, exclude=NEW, rename=OWN),
        "3": jc.InitFrom(start, include=("params/backbone/*", "params/head/*")),
    }
    # Random convolutions learn.
    frozen = [match for match in FROZEN[step] if start or "conv[12]" not in match]
    return jc.Experiment(
        model=jc.create_model("faster_rcnn_vgg16", classes=20, **own),
        task=jc.Detection(criterion, protocol="voc07", classes=CLASSES[1:]),
        data=jc.Data(
            source=jc.VOCDetection("VOCdevkit/VOC2007"),
            train_split="trainval[2%:]",
            evaluation_splits=("trainval[:2%]",),
            test_splits=("test",),
            image_shape=(*size, 3),
            augment=(jc.Fit(size), jc.HorizontalFlip(), jc.PadTo(size, value=MEAN)),
            preprocess=(jc.Fit(size), jc.PadTo(size, value=MEAN)),
            normalize=jc.MEAN_RGB,
            batch_size=at_once,
            evaluation_batch_size=2,
        ),
        optimizer=jc.SGD(learning_rate=1e-3, momentum=0.9, weight_decay=5e-4, decay="all"),
        groups=(*(jc.Group(match, freeze=True) for match in frozen), jc.Group("*/bias", rate=2.0)),
        schedule=jc.StepDecay((jc.steps(high),), 0.1),
        init_from=weights.get(step, jc.InitFrom(start)) if start else jc.InitFrom(),
        duration=jc.steps(high + low),
        evaluate_every=jc.steps(5000),
        log_every=jc.steps(20),
        checkpoints=jc.Checkpoints(every=jc.steps(5000), metric="loss" if of_rpn else None),
    )
