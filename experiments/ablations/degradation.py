"""C13: degradation: a deeper plain net has a higher training error; shortcuts remove it.

Paper: He et al. 2016 (ResNet), sections 1, 4.1 and 4.2, tables 2 and 6, figures 1, 4 and 6.
Command: python -m jaxcnn.launch experiments/ablations/degradation.py --quick
Expected: the deep plain net trains worse than the shallow one, the deep residual net does not. Published, top-1 error
on ImageNet: plain-18 27.94, plain-34 28.54, ResNet-18 27.88, ResNet-34 25.03; on CIFAR-10: ResNet-20 8.75, ResNet-56
6.97 (the plain nets' are only drawn). Ours: docs/studies.md.
Registered anew: three seeds decided nothing, and all arms had the rate 0.1. Now eight seeds, and for each arm the rate,
of three, that leads to its lowest training loss.
"""

import dataclasses

import jaxcnn as jc
from jaxcnn.studies.recipes import changed, cifar10, cifar10_jpeg, digits

# Blocks of two convolutions per stage, by the number of layers, which is that of the paper's section 4.2.
DEPTHS = {
    "quick": {10: (2, 2), 42: (10, 10)},
    "medium": {20: (3, 3, 3), 56: (9, 9, 9)},
    "full": {20: (3, 3, 3), 32: (5, 5, 5), 56: (9, 9, 9)},
}


def study(scale: jc.Scale = "full") -> jc.Study:
    depths = DEPTHS[scale]
    shallow, deep = min(depths), max(depths)
    base = {"quick": on_digits, "medium": on_cifar10_jpeg, "full": on_cifar10}[scale]()
    arms = {
        f"{kind}-{layers}": dataclasses.replace(base, model=net(depth, kind, scale))
        for kind in ("plain", "ResNet")
        for layers, depth in depths.items()
    }
    different = {
        "quick": "two stages of 8 and 16 channels, on digits of 8x8 pixels",
        "medium": "CIFAR-10 from JPEG files, 20 epochs",
        "full": "CIFAR-10",
    }[scale]
    return jc.Study(
        question="Does depth harm a plain net's training, and do shortcuts remove the harm?",
        arms=arms,
        claims=(
            jc.Claim(
                text="the deep plain net has the higher training loss",
                higher=f"plain-{deep}",
                lower=f"plain-{shallow}",
                metric="train loss",
                published="ImageNet, top-1 error: plain-18 27.94, plain-34 28.54; training error in figure 4 likewise",
                different=different,
            ),
            jc.Claim(
                text="the deep residual net has a training loss at most 0.02 above the shallow one's",
                higher=f"ResNet-{shallow}",
                lower=f"ResNet-{deep}",
                metric="train loss",
                margin=-0.02,
                published="CIFAR-10, test error: ResNet-20 8.75, ResNet-56 6.97; training error falls in figure 6",
                different=different,
            ),
            jc.Claim(
                text="depth raises a plain net's training loss more than a residual net's",
                higher=f"plain-{deep}",
                lower=f"plain-{shallow}",
                beyond=(f"ResNet-{deep}", f"ResNet-{shallow}"),
                metric="train loss",
                published="ImageNet, top-1 error: 0.60 up when plain, 2.85 down when residual",
                different=different,
            ),
            jc.Claim(
                text="of the deep nets the residual one has the higher test accuracy",
                higher=f"ResNet-{deep}",
                lower=f"plain-{deep}",
                published="ImageNet, top-1 error: plain-34 28.54, ResNet-34 25.03",
                different=different,
            ),
        ),
        seeds=tuple(range(8 if scale == "quick" else 5)),
        metric="test accuracy",
        note="Quick scale: two stages instead of three, half as wide, on scikit-learn's digits." * (scale == "quick"),
        # The full form has the paper's rate.
        tuning=None
        if scale == "full"
        else jc.Tuning({"optimizer.learning_rate": (0.02, 0.05, 0.1)}, metric="train loss"),
        matched="epochs",
    )


def net(depth: tuple[int, ...], kind: str, scale: jc.Scale):
    fields = {"width": 0.5} if scale == "quick" else {}
    return jc.create_model("resnet20_cifar", depth=depth, shortcut="none" if kind == "plain" else "A", **fields)


def on_digits():
    base = digits(jc.create_model("resnet20_cifar"), train="train[:1200]")
    return changed(base, duration=jc.epochs(8), evaluate_every=jc.epochs(4), weight_decay=1e-4)


def on_cifar10_jpeg():
    base = cifar10_jpeg(jc.create_model("resnet20_cifar"))
    return changed(base, augment=(jc.PadAndCrop(4), jc.HorizontalFlip()), duration=jc.epochs(20), weight_decay=1e-4)


def on_cifar10():
    """The paper's recipe: 64,000 steps of 128, the rate divided by ten at 32,000 and 48,000."""
    return changed(
        cifar10(jc.create_model("resnet20_cifar")),
        duration=jc.epochs(164),
        schedule=jc.StepDecay(milestones=(jc.epochs(82), jc.epochs(123))),
        weight_decay=1e-4,
    )
