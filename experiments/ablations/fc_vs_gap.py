"""C12: global average pooling can replace the fully connected layers.

Papers: Lin, Chen, Yan 2014 (Network in Network), section 3.2 and table 5; Zhou et al. 2016 (CAM), table 1.
Command: python -m jaxcnn.launch experiments/ablations/fc_vs_gap.py --quick
Expected: far fewer parameters and a small loss or gain. Published: VGG-GAP 33.4 against 31.2 top-1 error on ImageNet,
GoogLeNet-GAP 35.0 against 31.9 (CAM); NIN 10.41 with GAP, 10.88 with FC and dropout, 11.59 with FC (CIFAR-10). Ours:
docs/studies.md.
"""

import dataclasses

from jaxcnn import create_model
from jaxcnn.data.digits import Digits
from jaxcnn.data.tfds import Tfds
from jaxcnn.data.transforms import HorizontalFlip, Normalize, PadAndCrop, Resize
from jaxcnn.experiment import Data, Experiment
from jaxcnn.models import FC, GAP
from jaxcnn.studies.study import Claim, Study
from jaxcnn.train.duration import epochs, steps
from jaxcnn.train.optimizers import SGD
from jaxcnn.train.schedules import Cosine


def study(quick: bool = False) -> Study:
    fc = FC(classes=10, widths=(512, 512), names=("fc6", "fc7", "fc8"), dropout=0.5)
    heads = {"FC": fc.clone(dropout=0.0), "FC, dropout": fc, "GAP": GAP(classes=10)}
    base = on_digits() if quick else on_cifar10()
    arms = {
        name: dataclasses.replace(base, model=create_model("vgg11_bn", head=head, **net(quick)))
        for name, head in heads.items()
    }
    return Study(
        question="Can global average pooling replace the fully connected layers?",
        arms=arms,
        claims=(
            Claim(
                text="GAP has fewer parameters than FC",
                higher="FC, dropout",
                lower="GAP",
                metric="parameters",
                published="VGG-16: 123.6 M of 138.4 M parameters are in its FC layers",
            ),
            Claim(
                text="GAP loses at most one point against FC with dropout",
                higher="GAP",
                lower="FC, dropout",
                margin=-0.01,
                published="error on CIFAR-10 (NIN): 10.41 with GAP, 10.88 with FC; on ImageNet (VGG): 33.4, 31.2",
                different="a small VGG-A on digits of 8x8 pixels" if quick else "VGG-A without its last stage",
            ),
            Claim(
                text="GAP does better than FC without dropout",
                higher="GAP",
                lower="FC",
                published="NIN on CIFAR-10: error 10.41 with GAP, 11.59 with FC",
                different="a small VGG-A on digits of 8x8 pixels" if quick else "VGG-A without its last stage",
            ),
        ),
        seeds=(0, 1, 2, 3, 4) if quick else (0, 1, 2),
        note="Quick scale: a VGG-A of three stages, an eighth as wide, on scikit-learn's digits." if quick else "",
    )


def net(quick: bool) -> dict:
    return {"stages": 3, "width": 0.125} if quick else {"stages": 4}


def on_digits() -> Experiment:
    return Experiment(
        model=create_model("vgg11_bn"),
        data=Data(
            image_shape=(16, 16, 1),
            source=Digits(),
            augment=(Resize((16, 16)),),
            preprocess=(Resize((16, 16)),),
            normalize=Normalize(mean=(78.0,), std=(96.0,)),
            batch_size=64,
        ),
        optimizer=SGD(learning_rate=0.05, momentum=0.9, weight_decay=5e-4),
        schedule=Cosine(),
        duration=epochs(10),
        log_every=steps(20),
    )


def on_cifar10() -> Experiment:
    return Experiment(
        model=create_model("vgg11_bn"),
        data=Data(
            image_shape=(32, 32, 3),
            source=Tfds("cifar10"),
            augment=(PadAndCrop(4), HorizontalFlip()),
            normalize=Normalize(mean=(125.3, 123.0, 113.9), std=(63.0, 62.1, 66.7)),
            batch_size=128,
        ),
        optimizer=SGD(learning_rate=0.1, momentum=0.9, weight_decay=5e-4),
        schedule=Cosine(),
        duration=epochs(100),
        log_every=steps(100),
    )
