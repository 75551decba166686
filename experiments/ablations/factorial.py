"""Beyond the course: batch norm, shortcuts and depth, every combination of them.

Papers: Ioffe & Szegedy 2015 (batch norm); He et al. 2016 (ResNet), sections 1 and 4.1, whose plain nets have batch norm
as well; Zhang, Dauphin & Ma 2019 (Fixup), which trains deep residual nets without any normalisation.
Command: python -m jaxcnn.launch experiments/ablations/factorial.py --quick
Expected: batch norm and shortcuts each lower the training loss, the deep plain net without both does not train, and
each of the two helps most if the other is missing. Published: no figure of the interactions. Ours: docs/studies.md.
The course studies one change at a time (C13, C14); here all eight nets are trained, each at a rate of its own, so that
it shows whether one makes up for the other. A main effect is the difference of two means of four nets, an interaction a
difference of such differences, of means of two nets.
"""

import dataclasses
import itertools
from typing import Literal

import jaxcnn as jc
from jaxcnn.studies.groups import factorial
from jaxcnn.studies.recipes import changed, cifar10, digits

NORMS = {"no norm": "none", "batch norm": "batch"}
SHORTCUTS = {"plain": "none", "residual": "A"}
# Blocks of two convolutions per stage.
DEPTHS = {
    "quick": {"10 layers": (2, 2), "22 layers": (5, 5)},
    "full": {"20 layers": (3, 3, 3), "56 layers": (9, 9, 9)},
}


def study(scale: Literal["quick", "full"] = "full") -> jc.Study:
    depths = DEPTHS[scale]
    shallow, deep = depths
    base = on_digits() if scale == "quick" else on_cifar10()
    fields = {"width": 0.5} if scale == "quick" else {}
    arms = {}
    for norm, shortcut, layers in itertools.product(NORMS, SHORTCUTS, depths):
        model = jc.create_model(
            "resnet20_cifar", depth=depths[layers], norm=NORMS[norm], shortcut=SHORTCUTS[shortcut], **fields
        )
        arms[f"{norm}, {shortcut}, {layers}"] = dataclasses.replace(base, model=model)
    different = "two stages of 8 and 16 channels, on digits of 8x8 pixels" if scale == "quick" else "CIFAR-10"
    more = {"metric": "train loss", "published": "claimed without a figure", "different": different}
    return jc.Study(
        question="How do batch norm, shortcuts and depth act together?",
        arms=arms,
        groups=factorial(tuple(NORMS), tuple(SHORTCUTS), tuple(depths)),
        claims=(
            jc.Claim("batch norm lowers the training loss", higher="no norm", lower="batch norm", **more),
            jc.Claim("shortcuts lower the training loss", higher="plain", lower="residual", **more),
            jc.Claim("more layers raise the training loss", higher=deep, lower=shallow, **more),
            jc.Claim(
                "batch norm lowers the loss more without shortcuts than with them",
                higher="no norm, plain",
                lower="batch norm, plain",
                beyond=("no norm, residual", "batch norm, residual"),
                **more,
            ),
            jc.Claim(
                "batch norm lowers the loss more in deep nets than in shallow ones",
                higher=f"no norm, {deep}",
                lower=f"batch norm, {deep}",
                beyond=(f"no norm, {shallow}", f"batch norm, {shallow}"),
                **more,
            ),
            jc.Claim(
                "shortcuts lower the loss more in deep nets than in shallow ones",
                higher=f"plain, {deep}",
                lower=f"residual, {deep}",
                beyond=(f"plain, {shallow}", f"residual, {shallow}"),
                **more,
            ),
            jc.Claim(
                "of deep residual nets the one with batch norm still has the higher test accuracy",
                higher=f"batch norm, residual, {deep}",
                lower=f"no norm, residual, {deep}",
                published="claimed without a figure",
                different=different,
            ),
        ),
        seeds=(0, 1, 2, 3, 4),
        diverged={"train loss": CHANCE, "test accuracy": 0.1},
        note="A run that diverges counts as one that guesses: the loss of equal probabilities for ten classes. "
        + "Quick scale: two stages instead of three, half as wide, on scikit-learn's digits." * (scale == "quick"),
        tuning=jc.Tuning({"optimizer.learning_rate": (0.01, 0.03, 0.1)}, metric="train loss"),
        matched="epochs",
    )


CHANCE = 2.303  # -ln(1/10)


def on_digits():
    base = digits(jc.create_model("resnet20_cifar"), train="train[:600]")
    return changed(base, duration=jc.epochs(8), evaluate_every=jc.epochs(4), weight_decay=1e-4, batch_size=32)


def on_cifar10():
    return changed(cifar10(jc.create_model("resnet20_cifar")), weight_decay=1e-4)
