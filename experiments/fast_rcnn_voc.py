"""Fast R-CNN with VGG-16 on Pascal VOC 2007, on the proposals of a file or on dense windows.

Paper: Girshick 2015, sections 2.3 and 4; code: github.com/rbgirshick/fast-rcnn (models/VGG16/solver.prototxt). Photos
resized to a shorter side of 600 and mirrored at random, minus the mean color; steps of two photos, 64 regions of each;
SGD with momentum 0.9 and weight decay 5e-4 (not of biases), 1e-3 for 30,000 steps and 1e-4 for 10,000, biases at twice
that; conv1 and conv2 stay those of --start; NMS 0.3 at the end.
Proposals: --proposals FILE, of selective search, which the paper's number is of; docs/detection.md makes a file of
trainval and test out of fast-rcnn's selective_search_data. **Without it they are windows of three sizes and shapes
every 64 pixels**, 1,521 of them; sparse proposals do better than dense ones (section 5.5).
Departures: every photo is fitted into 800x800 and padded by the mean color. Without --start all weights are random, and
all learn.
Data: VOCdevkit/VOC2007; its test split is read once, at the end. Difficult boxes are not learned.
Weights: jaxcnn import-weights vgg16 vgg16.pth --out runs/vgg16; the recipe is for weights that read 0..255 minus the
mean, as Caffe's. torchvision's read other numbers: give its own with --data.normalize.mean and --data.normalize.std.
Command: python -m jaxcnn.launch experiments/fast_rcnn_voc.py --start runs/vgg16 --workdir runs/fast_rcnn_voc
Expected: with selective search a mean average precision (voc07) of 66.9 (the paper, Table 1); ours: not run.
"""

import jaxcnn as jc
from jaxcnn.data.voc import CLASSES

MEAN = (124, 117, 104)  # MEAN_RGB, so that the net reads zeros
FIXED = jc.Group("params/backbone/conv[12]_*", freeze=True)
NEW = ("params/head/cls_score/*", "params/head/bbox_pred/*", "params/head/fc8/*")


def experiment(start: str | None = None, side: int = 800, proposals: str | None = None) -> jc.Experiment:
    size = (side, side)
    photos = jc.VOCDetection("VOCdevkit/VOC2007")
    return jc.Experiment(
        model=jc.create_model("fast_rcnn_vgg16", classes=20),
        task=jc.Detection(
            jc.FastRCNNLoss(), protocol="voc07", classes=CLASSES[1:], max_proposals=2000 if proposals else 0
        ),
        data=jc.Data(
            source=jc.WithProposals(photos, proposals) if proposals else photos,
            train_split="trainval[2%:]",
            evaluation_splits=("trainval[:2%]",),
            test_splits=("test",),
            image_shape=(*size, 3),
            augment=(jc.Fit(size), jc.HorizontalFlip(), jc.PadTo(size, value=MEAN)),
            preprocess=(jc.Fit(size), jc.PadTo(size, value=MEAN)),
            normalize=jc.MEAN_RGB,
            batch_size=2,
            evaluation_batch_size=1,
        ),
        optimizer=jc.SGD(learning_rate=1e-3, momentum=0.9, weight_decay=5e-4),
        groups=(*((FIXED,) if start else ()), jc.Group("*/bias", rate=2.0)),
        schedule=jc.StepDecay((jc.steps(30_000),), 0.1),
        init_from=jc.InitFrom(run=start, exclude=NEW if start else ()),
        duration=jc.steps(40_000),
        evaluate_every=jc.steps(5000),
        log_every=jc.steps(20),
        checkpoints=jc.Checkpoints(every=jc.steps(5000)),
    )
