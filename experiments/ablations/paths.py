"""C26: a residual net behaves like many paths: without one block it loses little, a plain net everything.

Paper: Veit et al. 2016 (Residual networks behave like ensembles of relatively shallow networks), section 4.1, figure 3.
Command: python -m jaxcnn.launch experiments/ablations/paths.py --quick
Expected: without one of its blocks the residual net keeps most of its accuracy, the plain net falls to chance.
Published: on CIFAR-10 removing any layer of VGG brings it to chance (90% error), in a ResNet of 110 layers removing a
block has hardly an effect, except where the map is halved (figure 3, no table). Ours: docs/studies.md.
Registered anew: three seeds decided nothing, and both arms had one rate. Now eight seeds, and for each arm the rate, of
three, that is best on other training images.
"""

from typing import Literal

import jaxcnn as jc
from jaxcnn.studies.recipes import changed, cifar10, digits


def study(scale: Literal["quick", "full"] = "full") -> jc.Study:
    quick = scale == "quick"
    depth = (5, 5) if quick else (9, 9, 9)
    fields = {"width": 0.5} if quick else {}
    arms = {}
    for name, shortcut in {"residual": "A", "plain": "none"}.items():
        model = jc.create_model("resnet20_cifar", depth=depth, shortcut=shortcut, **fields)
        arms[name] = on_digits(model) if quick else cifar10(model)
    different = (
        "22 layers on digits of 8x8 pixels; the plain net has the same blocks, the paper's is a VGG"
        if quick
        else "56 layers; the plain net has the same blocks, the paper's is a VGG"
    )
    return jc.Study(
        question="Does a trained residual net do without one of its blocks, and a plain net not?",
        arms=arms,
        claims=(
            jc.Claim(
                text="a plain net loses at least 20 points more than a residual net without a block",
                higher="plain",
                lower="residual",
                metric="accuracy lost with a block",
                margin=0.2,
                published="CIFAR-10: VGG falls to chance, ResNet-110 hardly changes",
                different=different,
            ),
            jc.Claim(
                text="without its most important block the residual net still loses less",
                higher="plain",
                lower="residual",
                metric="accuracy lost with the worst block",
                published="CIFAR-10: VGG falls to chance, ResNet-110 hardly changes",
                different=different + ("; ten blocks, ResNet-110 has 54" if quick else ""),
            ),
        ),
        seeds=tuple(range(8 if quick else 5)),
        probes=(jc.WithoutBlocks(),),
        note="One block at a time is left out of the trained net, but none that halves the map; nothing is retrained.",
        tuning=jc.Tuning({"optimizer.learning_rate": (0.02, 0.05, 0.1)}),
        matched="epochs",
    )


def on_digits(model):
    base = digits(model, train="train[:1200]")
    return changed(base, duration=jc.epochs(8), evaluate_every=jc.epochs(4), weight_decay=1e-4)
