"""C9: stacked 3x3 convolutions beat one larger filter of the same receptive field, with fewer parameters.

Paper: Simonyan & Zisserman 2015 (VGG), sections 2.3 and 4.1.
Command: python -m jaxcnn.launch experiments/ablations/small_filters.py --quick
Expected: pairs of 3x3 are better than one 5x5, triples better than one 7x7. Published: B with each pair replaced by one
5x5 has a top-1 error 7 points higher; with C channels in and out, 18 C^2 weights against 25 C^2, 27 C^2 against 49 C^2.
Where a stage doubles its width the first convolution of a stack is half as wide: 13.5 C^2 against 12.5 C^2, 22.5 C^2
against 24.5 C^2. Ours: docs/studies.md.
"""

import dataclasses
from typing import Literal

import jaxcnn as jc
from jaxcnn.models.vgg import VGG_BN_HEAD
from jaxcnn.studies.recipes import changed, fashion_mnist, imagenet

NETS = {"pairs of 3x3": ("vgg13_bn", "5x5"), "triples of 3x3": ("vgg16_bn", "7x7")}


def study(scale: Literal["quick", "full"] = "full") -> jc.Study:
    quick = scale == "quick"
    base = on_fashion_mnist() if quick else imagenet(jc.create_model("vgg13_bn"), rate=0.05)
    different = "three stages, an eighth as wide, batch norm, Fashion-MNIST" if quick else "batch norm; central crop"
    arms, claims = {}, []
    for stack, (name, single) in NETS.items():
        arms[stack] = dataclasses.replace(base, model=net(name, True, quick))
        arms[f"one {single}"] = dataclasses.replace(base, model=net(name, False, quick))
        claims += [
            jc.Claim(
                text=f"{stack} are better than one {single}",
                higher=stack,
                lower=f"one {single}",
                published="5x5: top-1 error 7 points higher than pairs" if single == "5x5" else "not measured",
                different=different,
            ),
            jc.Claim(
                text=f"{stack} have fewer parameters than one {single}",
                higher=f"one {single}",
                lower=stack,
                metric="parameters",
                published="18 C^2 against 25 C^2" if single == "5x5" else "27 C^2 against 49 C^2",
                different="the widths double from stage to stage; the paper's count has equal ones",
            ),
        ]
    return jc.Study(
        question="Are stacked 3x3 convolutions better than one larger filter with the same receptive field?",
        arms=arms,
        claims=tuple(claims),
        seeds=(0, 1, 2),
        metric="test[:2000] accuracy" if quick else "validation accuracy",
        note="Pairs: VGG B; triples: VGG D, whose first two stages are pairs, replaced by 5x5. "
        + ("Quick scale: three stages, an eighth as wide, with batch norm." if quick else ""),
    )


def net(name: str, stacked: bool, quick: bool):
    if not quick:
        return jc.create_model(name, stacked=stacked, head=VGG_BN_HEAD)
    return jc.create_model(name, stacked=stacked, stages=3, width=0.125, head=jc.FC(classes=10, widths=(64,)))


def on_fashion_mnist():
    """At 28x28, so that no kernel is larger than its map."""
    return changed(
        fashion_mnist(net("vgg13_bn", True, quick=True), train=1000), duration=jc.epochs(8), evaluate_every=jc.epochs(2)
    )
