"""C22: maps of finer strides make a better segmentation: FCN-8s over 16s over 32s.

Paper: Long, Shelhamer & Darrell 2015 (FCN), section 4.2 and table 2.
Command: python -m jaxcnn.launch experiments/ablations/fcn_strides.py --quick
Expected: a higher mean IoU with each finer map. Published: 59.4, 62.4 and 62.7 for 32s, 16s and 8s on a part of
VOC 2011's validation images; 63.6, 65.0 and 65.5 by the authors' repository. Ours: docs/studies.md.
Registered anew: the nets had one rate, chosen with 32 test images, and five seeds. Now eight, and for each net the
rate, of three, that is best on a tenth of the training images, which no net of the study is trained on. The medium form
is for one GPU.
"""

import dataclasses
import itertools

import jaxcnn as jc
from jaxcnn.models.fcn import vgg_maps

STRIDES = {"FCN-32s": 32, "FCN-16s": 16, "FCN-8s": 8}


def study(scale: jc.Scale = "full") -> jc.Study:
    base = on_voc() if scale == "full" else on_camvid(scale)
    different = {
        "quick": "a VGG an eighth as wide, with batch norm, on CamVid at 120x90",
        "medium": "a VGG half as wide, with batch norm, on CamVid at 240x180",
        "full": "each net trained at once",
    }[scale]
    published = {"FCN-16s": "59.4 with 32s, 62.4 with 16s (table 2)", "FCN-8s": "62.4 with 16s, 62.7 with 8s (table 2)"}
    names = list(STRIDES)
    return jc.Study(
        question="Do maps of finer strides make a better segmentation?",
        arms={name: dataclasses.replace(base, model=net(stride, scale)) for name, stride in STRIDES.items()},
        claims=tuple(
            jc.Claim(
                text=f"{finer} has a higher mean IoU than {coarser}",
                higher=finer,
                lower=coarser,
                published=published[finer],
                different=different,
            )
            for coarser, finer in itertools.pairwise(names)
        ),
        seeds=tuple(range({"quick": 8, "medium": 5, "full": 3}[scale])),
        metric="val mean_iou" if scale == "full" else "test mean_iou",
        note="Masks are resized as well, so the figures are those of the small images. fc6 is 1x1." * (scale != "full"),
        # The full form has the authors' rate.
        tuning=None if scale == "full" else jc.Tuning({"optimizer.learning_rate": (1e-3, 3e-3, 1e-2)}),
        matched="epochs" if scale != "full" else "steps",
    )


def net(stride: int, scale: jc.Scale):
    if scale != "full":
        width, hidden = (0.125, 64) if scale == "quick" else (0.5, 256)
        small = {"width": width, "padding": 1, "widths": (hidden,), "window": 1, "border": "repeat"}
        return jc.create_model("fcn8s_vgg16_bn", classes=11, maps=vgg_maps(padding=1, finest=stride), **small)
    # Skips that are new are scaled down, as in the code's voc-fcn8s-atonce: there is no coarser net to start from.
    return jc.create_model(f"fcn{stride}s_vgg16", classes=21, skip_scales=SCALES[stride])


SCALES = {32: (), 16: (0.01,), 8: (0.01, 0.0001)}


def on_camvid(scale: jc.Scale) -> jc.Experiment:
    size, epochs = ((90, 120), 3) if scale == "quick" else ((180, 240), 30)
    return jc.Experiment(
        model=net(32, scale),
        task=jc.Segmentation(),
        data=jc.Data(
            source=jc.VOCSegmentation("camvid"),
            train_split="train[:90%]",
            evaluation_splits=("train[90%:]",),
            test_splits=("test",),
            image_shape=(*size, 3),
            augment=(jc.Resize(size), jc.HorizontalFlip()),
            preprocess=(jc.Resize(size),),
            normalize=jc.Normalize(mean=(105.0,), std=(75.0,)),
            batch_size=8,
            evaluation_batch_size=16,
        ),
        optimizer=jc.Adam(learning_rate=3e-3),
        schedule=jc.Cosine(),
        duration=jc.epochs(epochs),
        evaluate_every=jc.epochs(epochs),
        log_every=jc.steps(20),
    )


def on_voc() -> jc.Experiment:
    """As experiments/fcn_voc.py --net 8s_at_once, from a run of VGG-16 with ImageNet's weights."""
    pad = jc.PadTo((500, 500), value=(124, 117, 104))
    return jc.Experiment(
        model=net(32, "full"),
        task=jc.Segmentation(reduction="sum"),
        data=jc.Data(
            source=jc.VOCSegmentation("VOCdevkit/VOC2012"),
            train_split="train",
            evaluation_splits=(),
            test_splits=("val",),
            image_shape=(500, 500, 3),
            augment=(pad,),
            preprocess=(pad,),
            normalize=jc.MEAN_RGB,
            batch_size=1,
            evaluation_batch_size=1,
        ),
        optimizer=jc.SGD(learning_rate=1e-10, momentum=0.99, weight_decay=5e-4),
        init_from=jc.InitFrom(run="runs/vgg16", exclude=("params/head/score_*", "params/head/fc8/*")),
        duration=jc.steps(300_000),
        log_every=jc.steps(100),
        checkpoints=jc.Checkpoints(every=jc.steps(10_000)),
    )
