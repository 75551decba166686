"""C3: ReLU reaches a given training error in fewer epochs than tanh or sigmoid.

Paper: Krizhevsky et al. 2012 (AlexNet), section 3.1 and figure 1: a net of four convolutional layers on CIFAR-10.
Command: python -m jaxcnn.launch experiments/ablations/activations.py --quick
Expected: ReLU first, tanh later, sigmoid last. Published: ReLU reaches 25% training error on CIFAR-10 six times faster
than tanh. Ours: docs/studies.md.
Registered anew: at first all had one rate, and ReLU the initialisation that LeCun derived for tanh. Now each has the
one that was derived for it, and the rate, of five, at which it is fastest, as in the paper.
"""

import dataclasses

import jaxcnn as jc
from jaxcnn.studies.recipes import changed, cifar10, cifar10_jpeg, fashion_mnist

THRESHOLD = 0.75  # the paper's 25% training error
FIGURE = f"epochs to train accuracy {THRESHOLD:g}"
INITS = {"ReLU": "he_fan_in", "tanh": "lecun_normal", "sigmoid": "glorot_uniform"}


def study(scale: jc.Scale = "full") -> jc.Study:
    base = {"quick": on_fashion_mnist, "medium": on_cifar10_jpeg, "full": on_cifar10}[scale]()
    different = {
        "quick": "4,000 images of Fashion-MNIST, no regularisation",
        "medium": "CIFAR-10 from JPEG files, no regularisation",
        "full": "no regularisation",
    }[scale]
    return jc.Study(
        question="Does ReLU reach a training error in fewer epochs than tanh and sigmoid?",
        arms={name: dataclasses.replace(base, model=net(name, scale)) for name in INITS},
        claims=(
            jc.Claim(
                text="tanh needs more epochs than ReLU",
                higher="tanh",
                lower="ReLU",
                metric=FIGURE,
                published="six times as many to 25% training error (a net of four convolutional layers)",
                different=different,
            ),
            jc.Claim(
                text="sigmoid needs more epochs than ReLU",
                higher="sigmoid",
                lower="ReLU",
                metric=FIGURE,
                published="not in the paper",
                different=different,
            ),
        ),
        seeds=tuple(range(5 if scale == "full" else 8)),
        metric="test accuracy",
        reach={"train accuracy": THRESHOLD},
        note="A run that never reaches the training accuracy counts with its whole length. Convolutions start from "
        "He's initialisation for ReLU, LeCun's for tanh and Glorot's for the sigmoid.",
        tuning=jc.Tuning({"optimizer.learning_rate": (0.005, 0.02, 0.08, 0.3, 1.0)}, metric=FIGURE),
        matched="epochs",
    )


def net(name: str, scale: jc.Scale):
    """Four convolutions, VGG's A of three stages, without normalisation and regularisation."""
    width, hidden = {"quick": (0.125, 64), "medium": (0.5, 256), "full": (1.0, 512)}[scale]
    head = jc.FC(classes=10, widths=(hidden,))
    fields = {"stages": 3, "width": width, "activation": name.lower(), "kernel_init": INITS[name]}
    return jc.create_model("vgg11", head=head, **fields)


def on_fashion_mnist():
    return changed(
        fashion_mnist(net("ReLU", "quick"), size=16, train=4000, test=None),
        schedule=jc.Constant(),
        weight_decay=0.0,
        log_every=jc.steps(4),
        duration=jc.epochs(6),
        evaluate_every=jc.epochs(3),
    )


def on_cifar10_jpeg():
    return changed(
        cifar10_jpeg(net("ReLU", "medium")),
        schedule=jc.Constant(),
        weight_decay=0.0,
        log_every=jc.steps(16),
        duration=jc.epochs(20),
    )


def on_cifar10():
    return changed(
        cifar10(net("ReLU", "full")),
        schedule=jc.Constant(),
        augment=(),
        weight_decay=0.0,
        log_every=jc.steps(39),
        duration=jc.epochs(40),
    )
