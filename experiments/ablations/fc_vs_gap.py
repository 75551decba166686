"""C12: global average pooling can replace the fully connected layers.

Papers: Lin, Chen, Yan 2014 (Network in Network), section 3.2 and table 5; Zhou et al. 2016 (CAM), table 1.
Command: python -m jaxcnn.launch experiments/ablations/fc_vs_gap.py --quick
Expected: far fewer parameters and a small loss or gain. Published: VGG-GAP 33.4 against 31.2 top-1 error on ImageNet,
GoogLeNet-GAP 35.0 against 31.9 (CAM); NIN 10.41 with GAP, 10.88 with FC and dropout, 11.59 with FC (CIFAR-10). Ours:
docs/studies.md.
"""

import dataclasses
from typing import Literal

import jaxcnn as jc


def study(scale: Literal["quick", "full"] = "full") -> jc.Study:
    quick = scale == "quick"
    fc = jc.FC(classes=10, widths=(512, 512), names=("fc6", "fc7", "fc8"), dropout=0.5)
    heads = {"FC": fc.clone(dropout=0.0), "FC, dropout": fc, "GAP": jc.GAP(classes=10)}
    base = on_digits() if quick else on_cifar10()
    arms = {
        name: dataclasses.replace(base, model=jc.create_model("vgg11_bn", head=head, **net(quick)))
        for name, head in heads.items()
    }
    return jc.Study(
        question="Can global average pooling replace the fully connected layers?",
        arms=arms,
        claims=(
            jc.Claim(
                text="GAP has fewer parameters than FC",
                higher="FC, dropout",
                lower="GAP",
                metric="parameters",
                published="VGG-16: 123.6 M of 138.4 M parameters are in its FC layers",
            ),
            jc.Claim(
                text="GAP loses at most one point against FC with dropout",
                higher="GAP",
                lower="FC, dropout",
                margin=-0.01,
                published="error on CIFAR-10 (NIN): 10.41 with GAP, 10.88 with FC; on ImageNet (VGG): 33.4, 31.2",
                different="a small VGG-A on digits of 8x8 pixels" if quick else "VGG-A without its last stage",
            ),
            jc.Claim(
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


def on_digits() -> jc.Experiment:
    return jc.Experiment(
        model=jc.create_model("vgg11_bn"),
        data=jc.Data(
            image_shape=(16, 16, 1),
            source=jc.Digits(),
            augment=(jc.Resize((16, 16)),),
            preprocess=(jc.Resize((16, 16)),),
            normalize=jc.Normalize(mean=(78.0,), std=(96.0,)),
            batch_size=64,
        ),
        optimizer=jc.SGD(learning_rate=0.05, momentum=0.9, weight_decay=5e-4),
        schedule=jc.Cosine(),
        duration=jc.epochs(10),
        log_every=jc.steps(20),
    )


def on_cifar10() -> jc.Experiment:
    return jc.Experiment(
        model=jc.create_model("vgg11_bn"),
        data=jc.Data(
            image_shape=(32, 32, 3),
            source=jc.Tfds("cifar10"),
            augment=(jc.PadAndCrop(4), jc.HorizontalFlip()),
            normalize=jc.Normalize(mean=(125.3, 123.0, 113.9), std=(63.0, 62.1, 66.7)),
            batch_size=128,
        ),
        optimizer=jc.SGD(learning_rate=0.1, momentum=0.9, weight_decay=5e-4),
        schedule=jc.Cosine(),
        duration=jc.epochs(100),
        log_every=jc.steps(100),
    )
