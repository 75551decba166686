"""C15: concatenation (DenseNet) is more parameter-efficient than addition.

Paper: Huang et al. 2017 (DenseNet), sections 3 and 4.4, figure 4.
Command: python -m jaxcnn.launch experiments/ablations/concatenation.py --quick
Expected: with as many parameters the concatenating net is more accurate, and with fewer as accurate. Published:
DenseNet-100-BC with 0.8 M parameters has 4.51 error on CIFAR-10, the pre-activation ResNet-1001 with 10.2 M has 4.62
(figure 4, right). Ours: docs/studies.md.
Registered anew: three seeds decided nothing, and all arms had one rate. Now eight seeds, for each arm the rate, of
three, that is best on other training images, and all 10,000 test images.
"""

from typing import Literal

import jaxcnn as jc
from jaxcnn.studies.recipes import changed, cifar10, fashion_mnist

# The last net's growth gives it about as many parameters as the adding net has.
QUICK = {"depth": (3, 3), "stem_width": 12}
FULL = {"depth": (12, 12, 12), "stem_width": 16}


def study(scale: Literal["quick", "full"] = "full") -> jc.Study:
    quick = scale == "quick"
    growth, wider = (4, 9) if quick else (12, 44)
    nets = {
        "addition": {"growth": growth, "combine": "add"},
        "concatenation": {"growth": growth},
        "concatenation, as many parameters": {"growth": wider},
    }
    arms = {}
    for name, fields in nets.items():
        model = jc.create_model("densenet40_k12_cifar", **(QUICK if quick else FULL), **fields)
        arms[name] = on_fashion_mnist(model) if quick else changed(cifar10(model), weight_decay=1e-4)
    different = (
        "two blocks of three layers, 1,000 images of Fashion-MNIST, 200 steps"
        if quick
        else "DenseNet-40; addition of the same depth"
    )
    return jc.Study(
        question="Is concatenation more parameter-efficient than addition?",
        arms=arms,
        claims=(
            jc.Claim(
                text="of the same depth and widths between blocks, the concatenating net has fewer parameters",
                higher="addition",
                lower="concatenation",
                metric="parameters",
                published="DenseNet-100-BC 0.8 M, ResNet-1001 10.2 M",
                different=different,
            ),
            jc.Claim(
                text="it loses at most one point",
                higher="concatenation",
                lower="addition",
                margin=-0.01,
                published="CIFAR-10, error: DenseNet-100-BC 4.51, ResNet-1001 4.62",
                different=different,
            ),
            jc.Claim(
                text="with as many parameters concatenation is better",
                higher="concatenation, as many parameters",
                lower="addition",
                published="ImageNet: DenseNet-201 (20 M) does as well as ResNet-101 (over 40 M)",
                different=different,
            ),
        ),
        seeds=tuple(range(8 if quick else 5)),
        metric="test accuracy",
        note="The adding net is a pre-activation residual net, as wide as the concatenating one at each block's start.",
        tuning=jc.Tuning({"optimizer.learning_rate": (0.03, 0.1, 0.3)}),
        matched="epochs",
    )


def on_fashion_mnist(model):
    base = fashion_mnist(model, size=16, train=1000, test=None)
    return changed(base, evaluate_every=jc.epochs(5), weight_decay=1e-4)
