"""C16: squeeze and excitation helps at little cost.

Paper: Hu et al. 2018 (SENet), sections 4 and 6.1, table 2.
Command: python -m jaxcnn.launch experiments/ablations/squeeze_excite.py --quick
Expected: a better accuracy for under one percent of multiply-adds. Published, ResNet-50 on ImageNet: top-1 error 24.80,
with SE 23.29; 3.86 G multiply-adds, with SE 3.87 G. Ours: docs/studies.md.
"""

from typing import Literal

import jaxcnn as jc
from jaxcnn.studies.recipes import changed, cifar10, fashion_mnist


def study(scale: Literal["quick", "full"] = "full") -> jc.Study:
    quick = scale == "quick"
    fields = {"depth": (2, 2), "width": 0.5} if quick else {}
    plain = jc.create_model("resnet20_cifar", **fields)
    # Reduction 4: the paper's 16 would leave these narrow nets one channel.
    excited = jc.create_model("resnet20_cifar", se=4, **fields)
    base = on_fashion_mnist(plain) if quick else cifar10(plain)
    cost = jc.summarize(plain, base.data.image_shape).multiply_adds
    different = "ResNet-10 of 8 and 16 channels, reduction 4" if quick else "ResNet-20 on CIFAR-10, reduction 4"
    return jc.Study(
        question="Does squeeze and excitation help at little cost?",
        arms={"ResNet": changed(base, model=plain), "SE-ResNet": changed(base, model=excited)},
        claims=(
            jc.Claim(
                text="SE raises the accuracy",
                higher="SE-ResNet",
                lower="ResNet",
                published="ResNet-50 on ImageNet: top-1 error 24.80, with SE 23.29",
                different=different,
            ),
            jc.Claim(
                text="SE adds less than one percent of multiply-adds",
                higher="ResNet",
                lower="SE-ResNet",
                metric="multiply-adds",
                margin=-0.01 * cost,
                published="3.86 G, with SE 3.87 G",
                different=different,
            ),
        ),
        seeds=(0, 1, 2, 3, 4) if quick else (0, 1, 2),
        metric="test[:2000] accuracy" if quick else "test accuracy",
        note="Quick scale: two stages, half as wide, 2,000 images of Fashion-MNIST at 16x16." if quick else "",
    )


def on_fashion_mnist(model):
    return changed(fashion_mnist(model, size=16), evaluate_every=jc.epochs(2), learning_rate=0.1, weight_decay=1e-4)
