"""C4: local response normalisation buys little in deep nets.

Papers: Simonyan & Zisserman 2015 (VGG), section 4.1 and table 3; Krizhevsky et al. 2012 (AlexNet), section 3.3.
Command: python -m jaxcnn.launch experiments/ablations/lrn.py --quick
Expected: no difference in VGG. Published, top-1 error on ImageNet: VGG A 29.6, A-LRN 29.7; in AlexNet LRN takes off 1.4
points of top-1 and 1.2 of top-5 error. Ours: docs/studies.md.
Registered anew: both arms had one rate. Now each has the rate, of three, that is best on other training images, ten
seeds, and all 10,000 test images.
"""

import dataclasses
from typing import Literal

import jaxcnn as jc
from jaxcnn.studies.recipes import changed, fashion_mnist, imagenet


def study(scale: Literal["quick", "full"] = "full") -> jc.Study:
    quick = scale == "quick"
    nets = {"VGG-A": "vgg11", "VGG-A-LRN": "vgg11_lrn"}
    # The papers' input, pixels minus their mean: LRN's constants are made for activations of that size.
    if quick:
        fields = {"stages": 3, "width": 0.125, "head": jc.FC(classes=10, widths=(64,), kernel_init="glorot_uniform")}
        base = changed(
            fashion_mnist(jc.create_model("vgg11", **fields), size=16, test=None),
            normalize=jc.Normalize(mean=(72.9,), std=(1.0,)),
            evaluate_every=jc.epochs(5),
        )
        models = {name: jc.create_model(net, **fields) for name, net in nets.items()}
    else:
        nets |= {"AlexNet": "alexnet_single", "AlexNet-LRN": "alexnet_single"}
        base = changed(
            imagenet(jc.create_model("vgg11"), rate=0.01),
            normalize=jc.MEAN_RGB,
            weight_decay=5e-4,
            duration=jc.epochs(74),
        )
        norms = {"AlexNet": "none", "AlexNet-LRN": "lrn"}
        models = {
            name: jc.create_model(net, **({"norm": norms[name]} if name in norms else {})) for name, net in nets.items()
        }
    different = "VGG-A of three stages, an eighth as wide, on 2,000 images of Fashion-MNIST" if quick else "other crops"
    claims = [
        jc.Claim(
            text="LRN adds at most one point to VGG-A",
            higher="VGG-A",
            lower="VGG-A-LRN",
            margin=-0.01,
            published="ImageNet, top-1 error: A 29.6, A-LRN 29.7",
            different=different,
        )
    ]
    if not quick:
        claims.append(
            jc.Claim(
                text="LRN helps AlexNet",
                higher="AlexNet-LRN",
                lower="AlexNet",
                published="ImageNet: top-1 error 1.4 lower, top-5 1.2 lower",
                different="one tower at 224x224, other crops",
            )
        )
    return jc.Study(
        question="What does local response normalisation buy?",
        arms={name: dataclasses.replace(base, model=model) for name, model in models.items()},
        claims=tuple(claims),
        seeds=tuple(range(10 if quick else 5)),
        metric="test accuracy" if quick else "validation accuracy",
        note="The input is the pixels minus their mean, not scaled, as in both papers.",
        # The full form has the paper's rate.
        tuning=jc.Tuning({"optimizer.learning_rate": (0.001, 0.002, 0.005)}) if quick else None,
        matched="epochs",
    )
