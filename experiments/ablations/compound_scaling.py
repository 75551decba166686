"""C17: scaling width, depth and resolution together beats scaling one of them.

Paper: Tan & Le 2019 (EfficientNet), sections 3 and 5.1, tables 3 and 7.
Command: python -m jaxcnn.launch experiments/ablations/compound_scaling.py --quick
Expected: at about four times the multiply-adds the compound net is the best. Published, top-1 accuracy on ImageNet at
1.8 G multiply-adds: B0 (0.4 G) 77.3, depth 79.0, width 78.9, resolution 79.1, compound 81.1; ResNet-50 (4.1 G) 76.0,
depth x4 78.1, width x2 77.7, resolution x2 77.5, compound 78.8. Ours: docs/studies.md.
"""

import dataclasses
from typing import Literal

import jaxcnn as jc
from jaxcnn.studies.recipes import changed, fashion_mnist, imagenet

DIMENSIONS = ("depth", "width", "resolution")


def study(scale: Literal["quick", "full"] = "full") -> jc.Study:
    quick = scale == "quick"
    arms = quick_arms() if quick else full_arms()
    different = "residual nets of two stages, Fashion-MNIST" if quick else "the recipe of ResNet, shorter"
    published = {"depth": "79.0", "width": "78.9", "resolution": "79.1"}
    return jc.Study(
        question="Does scaling width, depth and resolution together beat scaling one of them?",
        arms=arms,
        claims=tuple(
            jc.Claim(
                text=f"at about equal multiply-adds compound scaling is better than {dimension}",
                higher="compound",
                lower=dimension,
                published=f"EfficientNet-B0 at 1.8 G: compound 81.1, {dimension} {published[dimension]}",
                different=different
                + ("; the base is narrow, 8 and 16 channels" if quick and dimension == "width" else ""),
            )
            for dimension in DIMENSIONS
        ),
        seeds=(0, 1, 2),
        metric="test[:2000] accuracy" if quick else "validation accuracy",
        note="Quick scale: residual nets without depthwise convolutions, on images of 28x28 pixels made smaller."
        if quick
        else "",
    )


def quick_arms():
    """About four times the base's multiply-adds each: depth 4, width 2, resolution 2, and 1.5, 1.25, 4/3 together."""
    return {
        "base": residual((2, 2), 0.5, 12),
        "depth": residual((8, 8), 0.5, 12),
        "width": residual((2, 2), 1.0, 12),
        "resolution": residual((2, 2), 0.5, 24),
        "compound": residual((3, 3), 0.625, 16),
    }


def residual(depth: tuple[int, int], width: float, size: int):
    model = jc.create_model("resnet20_cifar", depth=depth, width=width)
    base = fashion_mnist(model, size=size, train=1000)
    return changed(base, duration=jc.epochs(8), evaluate_every=jc.epochs(2), learning_rate=0.1, weight_decay=1e-4)


def full_arms():
    """Table 7: B0 with d = 4, w = 2, r = 2, and d = 1.4, w = 1.2, r = 1.3."""
    scales = {
        "base": (1.0, 1.0, 224),
        "depth": (4.0, 1.0, 224),
        "width": (1.0, 2.0, 224),
        "resolution": (1.0, 1.0, 448),
        "compound": (1.4, 1.2, 288),
    }
    arms = {}
    for name, (depth, width, size) in scales.items():
        model = jc.create_model("efficientnet_b0", depth=depth, width=width)
        arms[name] = dataclasses.replace(imagenet(model, size=size))
    return arms
