"""C22: maps of finer strides make a better segmentation: FCN-8s over 16s over 32s.

Paper: Long, Shelhamer & Darrell 2015 (FCN), section 4.2 and table 2.
Command: python -m jaxcnn.launch experiments/ablations/fcn_strides.py --quick
Expected: a higher mean IoU with each finer map. Published: 59.4, 62.4 and 62.7 for 32s, 16s and 8s on a part of
VOC 2011's validation images; 63.6, 65.0 and 65.5 by the authors' repository. Ours: docs/studies.md.
The quick form's rate and length were chosen before its run, with one seed of each net and 32 test images.
"""

import dataclasses
import itertools
from typing import Literal

import jaxcnn as jc
from jaxcnn.models.fcn import vgg_maps

STRIDES = {"FCN-32s": 32, "FCN-16s": 16, "FCN-8s": 8}


def study(scale: Literal["quick", "full"] = "full") -> jc.Study:
    quick = scale == "quick"
    base = on_camvid() if quick else on_voc()
    different = "a VGG an eighth as wide, with batch norm, on CamVid at 120x90" if quick else "each net trained at once"
    published = {"FCN-16s": "59.4 with 32s, 62.4 with 16s (table 2)", "FCN-8s": "62.4 with 16s, 62.7 with 8s (table 2)"}
    names = list(STRIDES)
    return jc.Study(
        question="Do maps of finer strides make a better segmentation?",
        arms={name: dataclasses.replace(base, model=net(stride, quick)) for name, stride in STRIDES.items()},
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
        seeds=(0, 1, 2, 3, 4) if quick else (0, 1, 2),
        metric="test mean_iou" if quick else "val mean_iou",
        note="Quick scale: masks are resized as well, so the figures are those of 120x90 pixels. fc6 is 1x1." * quick,
    )


def net(stride: int, quick: bool):
    if quick:
        small = {"width": 0.125, "padding": 1, "widths": (64,), "window": 1, "border": "repeat"}
        return jc.create_model("fcn8s_vgg16_bn", classes=11, maps=vgg_maps(padding=1, finest=stride), **small)
    # Skips that are new are scaled down, as in the code's voc-fcn8s-atonce: there is no coarser net to start from.
    return jc.create_model(f"fcn{stride}s_vgg16", classes=21, skip_scales=SCALES[stride])


SCALES = {32: (), 16: (0.01,), 8: (0.01, 0.0001)}


def on_camvid() -> jc.Experiment:
    return jc.Experiment(
        model=net(32, quick=True),
        task=jc.Segmentation(),
        data=jc.Data(
            source=jc.VOCSegmentation("camvid"),
            train_split="train",
            evaluation_splits=(),
            test_splits=("test",),
            image_shape=(90, 120, 3),
            augment=(jc.Resize((90, 120)), jc.HorizontalFlip()),
            preprocess=(jc.Resize((90, 120)),),
            normalize=jc.Normalize(mean=(105.0,), std=(75.0,)),
            batch_size=8,
            evaluation_batch_size=16,
        ),
        optimizer=jc.Adam(learning_rate=3e-3),
        schedule=jc.Cosine(),
        duration=jc.epochs(3),
        log_every=jc.steps(20),
    )


def on_voc() -> jc.Experiment:
    """As experiments/fcn_voc.py --net 8s_at_once, from a run of VGG-16 with ImageNet's weights."""
    pad = jc.PadTo((500, 500), value=(124, 117, 104))
    return jc.Experiment(
        model=net(32, quick=False),
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
