"""C5: overlapping pooling helps a little.

Paper: Krizhevsky et al. 2012 (AlexNet), section 3.4.
Command: python -m jaxcnn.launch experiments/ablations/pooling.py --quick
Expected: a small gain of 3x3 windows with stride 2 over 2x2 ones. Published: 0.4 points of top-1 error and 0.3 of
top-5 on ImageNet. Ours: docs/studies.md.
Registered anew: both arms had one rate. Now each has the rate, of three, that is best on other training images, ten
seeds, and all 10,000 test images. An effect as small as the published one is below what these can show.
"""

import dataclasses
from typing import Literal

import jaxcnn as jc
from jaxcnn.studies.recipes import changed, fashion_mnist, imagenet


def study(scale: Literal["quick", "full"] = "full") -> jc.Study:
    quick = scale == "quick"
    if quick:
        head = jc.FC(classes=10, widths=(64,))
        model = jc.create_model("vgg11_bn", stages=3, width=0.125, head=head)
        base = changed(fashion_mnist(model, size=16, test=None), evaluate_every=jc.epochs(5))
    else:
        model = jc.create_model("alexnet")
        base = changed(imagenet(model, size=227, rate=0.01), batch_size=128, weight_decay=5e-4)
    arms = {"2x2": "max", "3x3, overlapping": "overlapping"}
    return jc.Study(
        question="Does overlapping pooling help?",
        arms={
            name: dataclasses.replace(base, model=model.clone(backbone=model.backbone.clone(pooling=pooling)))
            for name, pooling in arms.items()
        },
        claims=(
            jc.Claim(
                text="overlapping pooling is better",
                higher="3x3, overlapping",
                lower="2x2",
                published="AlexNet on ImageNet: top-1 error 0.4 lower, top-5 0.3 lower",
                different="a small VGG on 2,000 images of Fashion-MNIST at 16x16" if quick else "other crops",
            ),
        ),
        seeds=tuple(range(10 if quick else 5)),
        metric="test accuracy" if quick else "validation accuracy",
        note="Quick scale: VGG-A of three stages, an eighth as wide, with batch norm." if quick else "",
        # The full form has the paper's rate.
        tuning=jc.Tuning({"optimizer.learning_rate": (0.02, 0.05, 0.1)}) if quick else None,
        matched="epochs",
    )
