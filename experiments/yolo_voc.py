"""YOLO v1 on Pascal VOC 2007 and 2012, by the recipe of the paper.

Paper: Redmon, Divvala, Girshick & Farhadi 2016, section 2.2: the 24-convolution net at 448x448 whose first 20 were
trained on ImageNet at 224x224; 135 epochs of batches of 64, momentum 0.9, weight decay 0.0005; the rate rises slowly
from 1e-3 to 1e-2, stays for 75 epochs, then 1e-3 for 30 and 1e-4 for 30; scale and translation of up to 20%, exposure
and saturation by up to 1.5; dropout 0.5. `--net fast` is the 9-convolution net.
Departures: the rise takes three epochs, from 0 ("the first epochs" in the paper); images are mirrored too and their hue
is turned by up to a tenth, as in the released code; difficult boxes are not learned, as there. The released code itself
steps from 5e-4 at other places (yolov1.cfg); its loss differs by a field: `--task.criterion.responsible iou_or_rmse`.
Data: VOCdevkit with VOC2007 and VOC2012 in it; VOC 2007's test split is read once, at the end.
Weights: those of `yolo_v1_pretraining`, a run of your own: --start runs/yolo_v1_pretraining. Without --start all are
random.
Command: python -m jaxcnn.launch experiments/yolo_voc.py --start runs/yolo_v1_pretraining --workdir runs/yolo_voc
Expected: a mean average precision (voc07) of 63.4, Fast YOLO 52.7 (the paper, Table 1); ours: not run.
"""

from typing import Literal

import jaxcnn as jc
from jaxcnn.data.voc import CLASSES

SIZE = (448, 448)


def experiment(net: Literal["paper", "fast"] = "paper", start: str | None = None) -> jc.Experiment:
    return jc.Experiment(
        model=jc.create_model({"paper": "yolo_v1", "fast": "yolo_v1_fast"}[net], classes=20),
        task=jc.Detection(jc.YOLOLoss(), protocol="voc07", classes=CLASSES[1:]),
        data=jc.Data(
            source=jc.VOCDetection("VOCdevkit"),
            train_split="VOC2007/trainval[5%:]+VOC2012/trainval",
            evaluation_splits=("VOC2007/trainval[:5%]",),
            test_splits=("VOC2007/test",),
            image_shape=(*SIZE, 3),
            augment=(jc.EdgeJitter(SIZE, 0.2), jc.HorizontalFlip(), jc.HSVJitter(0.1, 1.5, 1.5)),
            preprocess=(jc.Resize(SIZE),),
            normalize=jc.UNIT,
            batch_size=64,
            evaluation_batch_size=64,
        ),
        optimizer=jc.SGD(learning_rate=1e-2, momentum=0.9, weight_decay=5e-4),
        schedule=jc.StepDecay((jc.epochs(75), jc.epochs(105)), 0.1, warmup=jc.epochs(3)),
        init_from=jc.InitFrom(run=start, exclude=("params/head/*", "params/backbone/conv2[1-4]/*") if start else ()),
        duration=jc.epochs(135),
        evaluate_every=jc.epochs(5),
        checkpoints=jc.Checkpoints(every=jc.epochs(1)),
    )
