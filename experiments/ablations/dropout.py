"""C6: dropout reduces overfitting.

Papers: Hinton et al. 2012; Krizhevsky et al. 2012 (AlexNet), section 4.2; Lin et al. 2014 (NIN), table 5.
Command: python -m jaxcnn.launch experiments/ablations/dropout.py --quick
Expected: the gap between training and test images shrinks, and the test error falls. Published: error on CIFAR-10 in
NIN 11.59 with FC layers, 10.88 with dropout. Ours: docs/studies.md.
"""

import dataclasses
from typing import Literal

import jaxcnn as jc
from jaxcnn.studies.recipes import changed, cifar10, fashion_mnist


def study(scale: Literal["quick", "full"] = "full") -> jc.Study:
    quick = scale == "quick"
    fields = {"stages": 3, "width": 0.125} if quick else {"stages": 4}
    head = jc.FC(classes=10, widths=(256, 256) if quick else (512, 512))
    model = jc.create_model("vgg11", head=head, **fields, kernel_init="he_fan_in")
    if quick:
        base = changed(
            fashion_mnist(model, size=16, train=1000),
            duration=jc.epochs(30),
            evaluate_every=jc.epochs(5),
            learning_rate=0.02,
            weight_decay=0.0,
        )
    else:
        base = changed(cifar10(model), augment=(), learning_rate=0.02, weight_decay=0.0)
    different = "a small VGG on 1,000 images of Fashion-MNIST" if quick else "VGG-A without its last stage"
    return jc.Study(
        question="Does dropout reduce overfitting?",
        arms={
            "no dropout": base,
            "dropout 0.5": dataclasses.replace(base, model=model.clone(head=model.head.clone(dropout=0.5))),
        },
        claims=(
            jc.Claim(
                text="dropout lowers the gap between the accuracies on training and test images",
                higher="no dropout",
                lower="dropout 0.5",
                metric="gap",
                published="AlexNet: without it 'our network exhibits substantial overfitting'",
                different=different,
            ),
            jc.Claim(
                text="dropout lowers the gap between the losses",
                higher="no dropout",
                lower="dropout 0.5",
                metric="loss gap",
                published="-",
                different=different,
            ),
            jc.Claim(
                text="dropout raises the test accuracy",
                higher="dropout 0.5",
                lower="no dropout",
                published="NIN on CIFAR-10: error 11.59 without, 10.88 with dropout",
                different=different,
            ),
        ),
        seeds=(0, 1, 2, 3) if quick else (0, 1, 2),
        metric="test[:2000] accuracy" if quick else "test accuracy",
        probes=(jc.Generalization(),),
        note="No weight decay and no augmentation: dropout is the only regularisation. Training images are measured "
        "after the training, without dropout.",
    )
