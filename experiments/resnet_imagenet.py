"""ResNet-18, 34, 50, 101 and 152 on ImageNet by four recipes.

paper: He et al. 2016, section 3.4: shorter side from [256, 480], crops of 224, flips, AlexNet's color shift; batch 256,
rate 0.1 divided by ten when the error stops improving, 600,000 steps, momentum 0.9, weight decay 1e-4. A bottleneck's
stride is in its first 1x1 convolution. Evaluated on ten crops.
torchvision-v1: its references/classification with the defaults: 90 epochs, batch 256, rate 0.1 divided by ten every 30.
torchvision-v2: its weights IMAGENET1K_V2: 600 epochs, batch 1024, rate 0.5 by half a cosine after 5 epochs of warm-up,
weight decay 2e-5 without norms, label smoothing 0.1, TrivialAugment, mixup 0.2 or CutMix 1.0, random erasing 0.1, four
views of each image, averaged weights, trained on 176 pixels and evaluated on 224 of 232.
mlperf: MLPerf Training 1.0, ResNet: LARS, its reference convergence point of batch 3,264: rate 10.5 by a polynomial of
power 2 down to 1e-4 after 2 epochs of warm-up, 37 epochs, weight decay 5e-5, label smoothing 0.1, batch norm over 204.
Departures: paper: the mean color is subtracted, not the mean image, and a hundredth of the training set watches the
rate. torchvision's warm-up and averages: the rates change at every step, not at
every epoch; the average is taken at every step with the 32nd root of its decay, and is not restarted in the warm-up; it
erases with the mean color (here too) after and not before the pixels are normalised; each image is mixed apart, not the
batch as one. Biases are not decayed but in paper and torchvision-v1. mlperf: the polynomial ends one step earlier.
Data: ILSVRC 2012, see docs/data.md.
Command: python -m jaxcnn.launch experiments/resnet_imagenet.py --depth 50 --recipe torchvision-v1
Expected: top-1 validation accuracy of depth 18, 34, 50, 101, 152: paper, ten crops, 72.12 (Table 2, with shortcuts A,
which have no parameters; here B), 75.48 (Table 3, B, quoted from memory), 77.1, 78.2, 78.6 (authors' repository);
torchvision-v1, one crop, 69.758, 73.314, 76.130, 77.374, 78.312, torchvision-v2 -, -, 80.858, 81.886, 82.284
(torchvision's metadata); mlperf 75.9 of depth 50 after 34 to 37 epochs (its reference points); ours: not run.
Devices and hours: paper 8 GPUs, torchvision 8 V100, hours not stated; mlperf 8 A100 in 28 to 30 minutes (results 2.1,
NVIDIA, another batch); ours: not run.
"""

from typing import Any, Literal

import jaxcnn as jc

V1_TRANSFORMS = (jc.RandomResizedCrop(224), jc.HorizontalFlip())
CROP = (jc.Resize(256), jc.CenterCrop(224))
MEAN_COLOR = (124, 116, 104)

# Of the data, beside what all have.
DATA: dict[str, dict[str, Any]] = {
    "paper": {
        "train_split": "train[:99%]",
        "evaluation_splits": ("train[99%:]",),
        "augment": (jc.ScaleJitter(256, 480), jc.RandomCrop(224), jc.HorizontalFlip(), jc.PCANoise()),
        "evaluation_shape": (256, 256, 3),
        "preprocess": (jc.Resize(256), jc.CenterCrop(256)),
        "normalize": jc.MEAN_RGB,
        "batch_size": 256,
    },
    "torchvision-v1": {"augment": V1_TRANSFORMS, "batch_size": 256},
    "torchvision-v2": {
        "image_shape": (176, 176, 3),
        "evaluation_shape": (224, 224, 3),
        "augment": (
            jc.RandomResizedCrop(176),
            jc.HorizontalFlip(),
            jc.TrivialAugment(method="bilinear"),
            jc.RandomErasing(0.1, value=MEAN_COLOR),
        ),
        "preprocess": (jc.Resize(232), jc.CenterCrop(224)),
        "batch_size": 1024,
        "repeats": 4,
    },
    "mlperf": {
        "augment": (jc.RandomResizedCrop(224, scale=(0.05, 1.0)), jc.HorizontalFlip()),
        "normalize": jc.MEAN_RGB,
        "batch_size": 3264,
    },
}
# Of the experiment.
SETTINGS: dict[str, dict[str, Any]] = {
    "paper": {
        "task": jc.Classification(views=jc.TenCrop(224)),
        "optimizer": jc.SGD(learning_rate=0.1, momentum=0.9, weight_decay=1e-4, decay="all"),
        "schedule": jc.Plateau(metric="accuracy", factor=0.1, patience=3),
        "duration": jc.steps(600_000),
    },
    "torchvision-v1": {
        "optimizer": jc.SGD(learning_rate=0.1, momentum=0.9, weight_decay=1e-4, decay="all"),
        "schedule": jc.StepDecay(milestones=(jc.epochs(30), jc.epochs(60))),
        "duration": jc.epochs(90),
    },
    "torchvision-v2": {
        "task": jc.Classification(jc.CrossEntropy(label_smoothing=0.1), mix=(jc.Mixup(0.2), jc.CutMix(1.0))),
        "optimizer": jc.SGD(learning_rate=0.5, momentum=0.9, weight_decay=2e-5),
        "schedule": jc.Cosine(warmup=jc.epochs(5)),
        # Of every 32nd step 1 - (1 - 0.99998) * 1024 * 32 / 600.
        "ema": jc.EMA(0.99996585, warm=False),
        "duration": jc.epochs(600),
    },
    "mlperf": {
        "task": jc.Classification(jc.CrossEntropy(label_smoothing=0.1)),
        "optimizer": jc.LARS(learning_rate=10.5, momentum=0.9, trust_coefficient=1e-3, weight_decay=5e-5),
        "schedule": jc.Polynomial(power=2.0, final=1e-4 / 10.5, warmup=jc.epochs(2)),
        "bn_group": 204,
        "duration": jc.epochs(37),
    },
}


def experiment(
    depth: Literal[18, 34, 50, 101, 152] = 50,
    recipe: Literal["paper", "torchvision-v1", "torchvision-v2", "mlperf"] = "torchvision-v1",
    dtype: Literal["float32", "bfloat16"] = "bfloat16",
) -> jc.Experiment:
    first = "_v1" if recipe == "paper" and depth >= 50 else ""
    shared: dict[str, Any] = {
        "source": jc.Tfds("imagenet2012"),
        "train_split": "train",
        "evaluation_splits": (),
        "test_splits": ("validation",),
        "image_shape": (224, 224, 3),
        "preprocess": CROP,
        "normalize": jc.IMAGENET,
        "workers": 16,
    }
    return jc.Experiment(
        model=jc.create_model(f"resnet{depth}{first}", classes=1000, dtype=dtype),
        data=jc.Data(**(shared | DATA[recipe])),
        log_every=jc.steps(100),
        **SETTINGS[recipe],
    )
