"""C14: batch normalisation speeds up convergence and permits larger rates and a worse initialisation.

Papers: Ioffe & Szegedy 2015, sections 3.3 and 4.2, figure 2 and table; docs/courses.md, S7, for the net: six
convolutions, each a sigmoid and then batch norm.
Command: python -m jaxcnn.launch experiments/ablations/batch_norm.py --quick
Expected: with batch norm the net reaches an accuracy in fewer steps, learns at rates at which the other does not, and
from weights from which the other does not. Published: steps to 72.2% on ImageNet: Inception 31.0 M, with batch norm
13.3 M, at five times the rate 2.1 M. Ours: docs/studies.md. How it depends on the batch: batch_size.py.
"""

import dataclasses
from typing import Literal

import jaxcnn as jc
from jaxcnn.studies.recipes import ALL, changed, fashion_mnist

RATES = (0.01, 0.1, 1.0)
THRESHOLD = 0.7


def study(scale: Literal["quick", "full"] = "full") -> jc.Study:
    quick = scale == "quick"
    base = on_fashion_mnist(quick)
    arms = {}
    for norm, words in (("none", "no norm"), ("batch", "batch norm")):
        for rate in RATES:
            arms[f"{words}, rate {rate:g}"] = changed(base, model=net(norm, quick), learning_rate=rate)
        poor = changed(base, model=net(norm, quick, kernel_init="normal_0.01"), learning_rate=0.1)
        arms[f"{words}, poor start"] = poor
    size = "a quarter as wide, 2,000 images of Fashion-MNIST" if quick else "Fashion-MNIST"
    different = f"the course notes' net of sigmoids, {size}"
    # Seen after the run: with momentum 0.9 the rate 1 is beyond what either net bears.
    too_high = "; momentum 0.9, with which the rate 1 is too high for both" if quick else ""
    metric = "test[:2000] accuracy" if quick else "test accuracy"
    return jc.Study(
        question="Does batch normalisation speed up convergence and permit larger rates and worse initialisation?",
        arms=arms,
        claims=(
            jc.Claim(
                text="at the rate 0.1 the net with batch norm needs fewer epochs",
                higher="no norm, rate 0.1",
                lower="batch norm, rate 0.1",
                metric=f"epochs to train accuracy {THRESHOLD:g}",
                published="steps to 72.2%: Inception 31.0 M, with batch norm 13.3 M",
                different=different,
            ),
            jc.Claim(
                text="with batch norm ten times the rate needs still fewer epochs",
                higher="batch norm, rate 0.1",
                lower="batch norm, rate 1",
                metric=f"epochs to train accuracy {THRESHOLD:g}",
                published="steps to 72.2%: 13.3 M, at five times the rate 2.1 M",
                different=different + too_high,
            ),
            jc.Claim(
                text="at the rate 1 the net with batch norm is at least ten points better",
                higher="batch norm, rate 1",
                lower="no norm, rate 1",
                margin=0.1,
                published="Inception at five times the rate: parameters reach machine infinity",
                different=different + too_high,
            ),
            jc.Claim(
                text="from kernels of N(0, 0.01^2) the net with batch norm is at least ten points better",
                higher="batch norm, poor start",
                lower="no norm, poor start",
                margin=0.1,
                published="claimed without a figure",
                different=different,
            ),
        ),
        seeds=(0, 1, 2),
        metric=metric,
        reach={"train accuracy": THRESHOLD},
        diverged={metric: 0.1},
        note="A run that never reaches the training accuracy counts with its whole length. "
        + ("Quick scale: the course notes' net, a quarter as wide." if quick else ""),
    )


def net(norm: str, quick: bool, **fields):
    model = jc.create_model("lecture_batchnorm", norm=norm)
    return model.clone(backbone=model.backbone.clone(width=0.25 if quick else 1.0, **fields))


def on_fashion_mnist(quick: bool):
    if not quick:
        experiment = fashion_mnist(net("batch", quick))
        return changed(
            experiment, **ALL, batch_size=128, schedule=jc.Constant(), weight_decay=0.0, log_every=jc.steps(50)
        )
    return dataclasses.replace(
        changed(fashion_mnist(net("batch", quick)), weight_decay=0.0, log_every=jc.steps(4)),
        schedule=jc.Constant(),
        duration=jc.epochs(6),
        evaluate_every=jc.epochs(2),
    )
