"""C2: a linear classifier learns one template per class and breaks on shifted or cropped images; a CNN does not.

Source: docs/courses.md, S2 (templates) and S4 (why convolutions).
Command: python -m jaxcnn.launch experiments/ablations/templates.py --quick
Expected: trained on centred images, the linear net loses much more accuracy than the CNNs when the test images are
moved or enlarged. Published: no figure. Ours: docs/studies.md.
"""

import dataclasses
from typing import Literal

import jaxcnn as jc
from jaxcnn.studies.recipes import changed, cifar10, fashion_mnist


def study(scale: Literal["quick", "full"] = "full") -> jc.Study:
    quick = scale == "quick"
    vgg = {"stages": 3, "width": 0.125} if quick else {"stages": 4}
    models = {
        "linear": jc.create_model("linear"),
        "CNN, FC head": jc.create_model("lecture_simple"),
        "CNN, GAP head": jc.create_model("vgg11_bn", head=jc.create_model("resnet20_cifar").head, **vgg),
    }
    if quick:
        base = changed(fashion_mnist(models["linear"]), optimizer=jc.Adam(2e-3), evaluate_every=jc.epochs(2))
        pixels, size, metric = 3, 22, "test[:2000] accuracy"
    else:
        # Centred images only: an augmentation that moves them would teach what is to be tested.
        base = changed(cifar10(models["linear"]), augment=(), optimizer=jc.Adam(1e-3), duration=jc.epochs(30))
        pixels, size, metric = 4, 24, "test accuracy"
    different = "2,000 images of Fashion-MNIST; no augmentation" if quick else "CIFAR-10 without augmentation"
    claims = []
    for cnn in ("CNN, FC head", "CNN, GAP head"):
        for noun, words in (("shift", f"moved by {pixels} pixels"), ("crop", f"cropped to {size} pixels")):
            claims.append(
                jc.Claim(
                    text=f"images {words} cost the linear net at least five points more than the {cnn}",
                    higher="linear",
                    lower=cnn,
                    metric=f"accuracy lost to the {noun}",
                    margin=0.05,
                    published="claimed without a figure",
                    different=different + ("; enlarging is no translation" if noun == "crop" else ""),
                )
            )
    return jc.Study(
        question="Does a linear classifier break on shifted and cropped images, and does a CNN not?",
        arms={name: dataclasses.replace(base, model=model) for name, model in models.items()},
        claims=tuple(claims),
        seeds=(0, 1, 2),
        metric=metric,
        probes=(jc.Shifted(pixels), jc.Cropped(size)),
        note=f"Test images moved by {pixels} pixels in four directions, or their middle {size}x{size} enlarged.",
    )
