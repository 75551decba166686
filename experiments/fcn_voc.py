"""FCN-32s, 16s and 8s on Pascal VOC by the recipe of the authors' code, one after the other, or 8s at once.

Papers: Long, Shelhamer & Darrell 2015 (FCN), section 4.3; Shelhamer, Long & Darrell 2017; their code is
github.com/shelhamer/fcn.berkeleyvision.org (voc-fcn32s, voc-fcn16s, voc-fcn8s, voc-fcn8s-atonce). Images one by one,
whole and not augmented, minus the mean color; SGD with momentum 0.99 and weight decay 5e-4 for 100,000 steps at a
fixed rate: 1e-10 for 32s, 1e-12 for 16s, 1e-14 for 8s. At once, 8s takes 300,000 steps at 1e-10 and scales pool4 by
0.01 and pool3 by 0.0001. The loss is a sum over the pixels; `--loss mean` takes the steps of a mean that are equal on
an image of 500x375 (docs/segmentation.md).
Departures: every image is padded to 500x500 by the mean color, which the truth ignores; biases learn at the rate of
kernels (twice it, in the code). Without --start all weights are random: 32s and 8s at once are to start from VGG-16,
16s from 32s, 8s from 16s.
Data: VOC 2012 in VOCdevkit/VOC2012; "val" is the test split, read once. The paper trained on the 8,498 images of SBD
(Hariharan et al. 2011) and tested on those of VOC 2011's val that SBD does not train on.
Weights: jaxcnn import-weights vgg16 vgg16.pth --out runs/vgg16; the recipe is for weights that read 0..255 minus the
mean, as Caffe's. torchvision's read other numbers: give its own with --data.normalize.mean and --data.normalize.std.
Command: python -m jaxcnn.launch experiments/fcn_voc.py --net 32s --start runs/vgg16 --workdir runs/fcn32s_voc
Expected: mean IoU 63.6 for 32s, 65.0 for 16s, 65.5 for 8s, 65.4 for 8s at once (736 images of VOC 2011, the authors'
repository); ours: not run.
"""

from typing import Literal

import jaxcnn as jc
from jaxcnn.data.voc import CLASSES

PAD = jc.PadTo((500, 500), value=(124, 117, 104))  # MEAN_RGB, so that the net reads zeros
PIXELS = 500 * 375  # of a typical image of VOC: what a mean is taken over
Net = Literal["32s", "16s", "8s", "8s_at_once"]
MODELS = {"32s": "fcn32s_vgg16", "16s": "fcn16s_vgg16", "8s": "fcn8s_vgg16", "8s_at_once": "fcn8s_vgg16"}
RATES = {"32s": 1e-10, "16s": 1e-12, "8s": 1e-14, "8s_at_once": 1e-10}
NEW = {  # what the net that it starts from does not have
    "32s": ("params/head/score_*", "params/head/fc8/*"),
    "16s": ("params/head/score_pool4/*",),
    "8s": ("params/head/score_pool3/*",),
    "8s_at_once": ("params/head/score_*", "params/head/fc8/*"),
}


def experiment(net: Net = "32s", loss: Literal["sum", "mean"] = "sum", start: str | None = None) -> jc.Experiment:
    at_once = net == "8s_at_once"
    pixels = 1 if loss == "sum" else PIXELS
    return jc.Experiment(
        model=jc.create_model(MODELS[net], classes=21, **({"skip_scales": (0.01, 0.0001)} if at_once else {})),
        task=jc.Segmentation(reduction=loss, classes=CLASSES),
        data=jc.Data(
            source=jc.VOCSegmentation("VOCdevkit/VOC2012"),
            train_split="train[:98%]",
            evaluation_splits=("train[98%:]",),
            test_splits=("val",),
            image_shape=(500, 500, 3),
            augment=(PAD,),
            preprocess=(PAD,),
            normalize=jc.MEAN_RGB,
            batch_size=1,
            evaluation_batch_size=1,
        ),
        optimizer=jc.SGD(learning_rate=RATES[net] * pixels, momentum=0.99, weight_decay=5e-4 / pixels),
        init_from=jc.InitFrom(run=start, exclude=NEW[net] if start else ()),
        duration=jc.steps(300_000 if at_once else 100_000),
        evaluate_every=jc.steps(4000),
        log_every=jc.steps(20),
        checkpoints=jc.Checkpoints(every=jc.steps(4000)),
    )
