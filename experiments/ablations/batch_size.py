"""C14: batch normalisation depends on the batch size, layer normalisation does not.

Papers: Ioffe & Szegedy 2015; Ba et al. 2016 (layer normalisation); Wu & He 2018, figure 1, for the dependence;
docs/courses.md, S7, for the net.
Command: python -m jaxcnn.launch experiments/ablations/batch_size.py --quick
Expected: from a batch of 50 to one of 2, at a rate in proportion, batch norm loses accuracy and layer norm does not.
Published, ResNet-50 on ImageNet (Wu & He 2018): batch norm's error 23.6 at 32 images per worker, 34.7 at 2; group
norm's 24.1 and 24.1. Ours: docs/studies.md.
"""

from typing import Literal

import jaxcnn as jc
from jaxcnn.studies.recipes import ALL, changed, fashion_mnist

LARGE, SMALL = 50, 2


def study(scale: Literal["quick", "full"] = "full") -> jc.Study:
    quick = scale == "quick"
    arms = {}
    for norm in ("batch", "layer"):
        for batch in (LARGE, SMALL):
            arms[f"{norm} norm, batch of {batch}"] = arm(norm, batch, quick)
    metric = "test[:2000] accuracy" if quick else "test accuracy"
    net = "the course notes' net, a quarter as wide, 1,000 images of" if quick else "the course notes' net,"
    different = f"{net} Fashion-MNIST; over all positions of a map two images still give many values"
    return jc.Study(
        question="Does batch normalisation depend on the batch size, and layer normalisation not?",
        arms=arms,
        claims=(
            jc.Claim(
                text=f"batch norm loses accuracy with a batch of {SMALL}",
                higher=f"batch norm, batch of {LARGE}",
                lower=f"batch norm, batch of {SMALL}",
                published="ResNet-50: error 23.6 at 32 images per worker, 34.7 at 2",
                different=different,
            ),
            jc.Claim(
                text=f"layer norm loses at most one point with a batch of {SMALL}",
                higher=f"layer norm, batch of {SMALL}",
                lower=f"layer norm, batch of {LARGE}",
                margin=-0.01,
                published="ResNet-50 with group norm: error 24.1 at 32 and at 2",
                different=different,
            ),
            jc.Claim(
                text="batch norm loses more than layer norm",
                higher=f"batch norm, batch of {LARGE}",
                lower=f"batch norm, batch of {SMALL}",
                beyond=(f"layer norm, batch of {LARGE}", f"layer norm, batch of {SMALL}"),
                published="ResNet-50: batch norm 11.1 points, group norm none",
                different=different,
            ),
        ),
        seeds=(0, 1, 2),
        metric=metric,
        diverged={metric: 0.1},
        note=f"All see equally many images; the rate is {RATE:g} for a batch of {LARGE}, in proportion for {SMALL}.",
    )


RATE = 0.1


def arm(norm: str, batch: int, quick: bool):
    model = jc.create_model("lecture_batchnorm", norm=norm)
    model = model.clone(backbone=model.backbone.clone(width=0.25 if quick else 1.0))
    base = fashion_mnist(model, train=1000)
    if not quick:
        base = changed(base, **ALL)
    return changed(
        base,
        batch_size=batch,
        learning_rate=RATE * batch / LARGE,
        weight_decay=0.0,
        duration=jc.epochs(6 if quick else 10),
        evaluate_every=jc.epochs(2),
        log_every=jc.steps(200 // batch),
    )
