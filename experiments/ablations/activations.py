"""C3: ReLU reaches a given training error in fewer epochs than tanh or sigmoid.

Paper: Krizhevsky et al. 2012 (AlexNet), section 3.1 and figure 1: a net of four convolutional layers on CIFAR-10.
Command: python -m jaxcnn.launch experiments/ablations/activations.py --quick
Expected: ReLU first, tanh later, sigmoid last. Published: ReLU reaches 25% training error on CIFAR-10 six times faster
than tanh. Ours: docs/studies.md.
"""

import dataclasses
from typing import Literal

import jaxcnn as jc
from jaxcnn.studies.recipes import changed, cifar10, fashion_mnist

THRESHOLD = 0.75  # the paper's 25% training error


def study(scale: Literal["quick", "full"] = "full") -> jc.Study:
    quick = scale == "quick"
    base = on_fashion_mnist() if quick else on_cifar10()
    figure = f"epochs to train accuracy {THRESHOLD:g}"
    different = (
        "2,000 images of Fashion-MNIST, one learning rate for all; the paper chose one for each"
        if quick
        else "one learning rate for all; the paper chose one for each"
    )
    return jc.Study(
        question="Does ReLU reach a training error in fewer epochs than tanh and sigmoid?",
        arms={name: dataclasses.replace(base, model=net(name.lower(), quick)) for name in ("ReLU", "tanh", "sigmoid")},
        claims=(
            jc.Claim(
                text="tanh needs more epochs than ReLU",
                higher="tanh",
                lower="ReLU",
                metric=figure,
                published="six times as many to 25% training error (a net of four convolutional layers)",
                different=different,
            ),
            jc.Claim(
                text="sigmoid needs more epochs than ReLU",
                higher="sigmoid",
                lower="ReLU",
                metric=figure,
                published="not in the paper",
                different=different,
            ),
        ),
        seeds=(0, 1, 2),
        metric="test[:2000] accuracy" if quick else "test accuracy",
        reach={"train accuracy": THRESHOLD},
        note="A run that never reaches the training accuracy counts with its whole length.",
    )


def net(activation: str, quick: bool):
    """Four convolutions, VGG's A of three stages, without normalisation and regularisation."""
    fields = {"stages": 3, "width": 0.125 if quick else 1.0, "activation": activation, "kernel_init": "lecun_normal"}
    return jc.create_model("vgg11", head=jc.FC(classes=10, widths=(64,) if quick else (512,)), **fields)


def on_fashion_mnist():
    return changed(
        fashion_mnist(net("relu", quick=True), size=16),
        schedule=jc.Constant(),
        learning_rate=0.02,
        weight_decay=0.0,
        log_every=jc.steps(4),
        evaluate_every=jc.epochs(2),
    )


def on_cifar10():
    return changed(
        cifar10(net("relu", quick=False)),
        schedule=jc.Constant(),
        augment=(),
        learning_rate=0.01,
        weight_decay=0.0,
        log_every=jc.steps(39),
        duration=jc.epochs(40),
    )
