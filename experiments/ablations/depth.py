"""C8: a deeper VGG is better.

Paper: Simonyan & Zisserman 2015 (VGG), section 4.1 and table 3.
Command: python -m jaxcnn.launch experiments/ablations/depth.py --quick
Expected: the error falls from A to D and then stays. Published, top-1 and top-5 error on ImageNet: A 29.6/10.4,
B 28.7/9.9, C 28.1/9.4, D 27.0/8.8, E 27.3/9.0. Ours: docs/studies.md.
"""

import dataclasses
from typing import Literal

import jaxcnn as jc
from jaxcnn.models.vgg import VGG_BN_HEAD
from jaxcnn.studies.recipes import changed, digits, imagenet

NETS = {"A": "vgg11", "B": "vgg13", "C": "vgg16_c", "D": "vgg16", "E": "vgg19"}


def study(scale: Literal["quick", "full"] = "full") -> jc.Study:
    quick = scale == "quick"
    different = (
        "three stages, an eighth as wide, batch norm; 300 digits, which every net fits"
        if quick
        else "batch norm; central crop"
    )
    base = quick_form() if quick else imagenet(jc.create_model("vgg11"), rate=0.05)
    return jc.Study(
        question="Is a deeper VGG better?",
        arms={f"VGG-{letter}": dataclasses.replace(base, model=net(name, quick)) for letter, name in NETS.items()},
        claims=(
            jc.Claim(
                text="B is better than A",
                higher="VGG-B",
                lower="VGG-A",
                published="top-1 error: A 29.6, B 28.7",
                different=different,
            ),
            jc.Claim(
                text="D is better than A",
                higher="VGG-D",
                lower="VGG-A",
                published="top-1 error: A 29.6, D 27.0",
                different=different,
            ),
            jc.Claim(
                text="3x3 convolutions (D) are better than 1x1 ones in their places (C)",
                higher="VGG-D",
                lower="VGG-C",
                published="top-1 error: C 28.1, D 27.0",
                different=different,
            ),
            jc.Claim(
                text="E is at most one point better than D",
                higher="VGG-D",
                lower="VGG-E",
                margin=-0.01,
                published="top-1 error: D 27.0, E 27.3",
                different=different,
            ),
        ),
        seeds=(0, 1, 2, 3, 4) if quick else (0, 1, 2),
        metric="test accuracy" if quick else "validation accuracy",
        note="Quick scale: VGG of three stages, an eighth as wide, on 300 of scikit-learn's digits, 355 to test. Seeds "
        "3 and 4 were run after the others had been looked at (all inconclusive)."
        if quick
        else "",
    )


def net(name: str, quick: bool):
    """The net with batch norm, and at quick scale with three stages and one hidden layer of 64."""
    model = jc.create_model(name, classes=10 if quick else 1000)
    backbone = model.backbone.clone(norm="batch", kernel_init="he_fan_out")
    if not quick:
        return model.clone(backbone=backbone, head=VGG_BN_HEAD)
    return model.clone(backbone=backbone.clone(stages=3, width=0.125), head=jc.FC(classes=10, widths=(64,)))


def quick_form():
    return changed(
        digits(jc.create_model("vgg11"), size=16, train="train[:300]"),
        duration=jc.epochs(20),
        evaluate_every=jc.epochs(5),
        batch_size=30,
    )
