"""C8: a deeper VGG is better.

Paper: Simonyan & Zisserman 2015 (VGG), section 4.1 and table 3.
Command: python -m jaxcnn.launch experiments/ablations/depth.py --quick
Expected: the error falls from A to D and then stays. Published, top-1 and top-5 error on ImageNet: A 29.6/10.4,
B 28.7/9.9, C 28.1/9.4, D 27.0/8.8, E 27.3/9.0. Ours: docs/studies.md.
Registered anew: 300 digits that every net fits showed no difference, and all arms had one rate. Now eight seeds, and
for each arm the rate, of three, that is best on other training digits. The quick form shows the method: nets of so few
images hardly differ; the medium form is the one that asks.
"""

import dataclasses

import jaxcnn as jc
from jaxcnn.models.vgg import VGG_BN_HEAD
from jaxcnn.studies.recipes import changed, cifar10_jpeg, digits, imagenet

NETS = {"A": "vgg11", "B": "vgg13", "C": "vgg16_c", "D": "vgg16", "E": "vgg19"}


def study(scale: jc.Scale = "full") -> jc.Study:
    base = {"quick": few_digits, "medium": on_cifar10_jpeg, "full": on_imagenet}[scale]()
    different = {
        "quick": "three stages, an eighth as wide, batch norm; 300 digits, which every net fits",
        "medium": "four stages, half as wide, batch norm; CIFAR-10 from JPEG files, 20 epochs",
        "full": "batch norm; central crop",
    }[scale]
    return jc.Study(
        question="Is a deeper VGG better?",
        arms={f"VGG-{letter}": dataclasses.replace(base, model=net(name, scale)) for letter, name in NETS.items()},
        claims=(
            jc.Claim(
                text="B is better than A",
                higher="VGG-B",
                lower="VGG-A",
                published="top-1 error: A 29.6, B 28.7",
                different=different,
            ),
            jc.Claim(
                text="D is better than A",
                higher="VGG-D",
                lower="VGG-A",
                published="top-1 error: A 29.6, D 27.0",
                different=different,
            ),
            jc.Claim(
                text="3x3 convolutions (D) are better than 1x1 ones in their places (C)",
                higher="VGG-D",
                lower="VGG-C",
                published="top-1 error: C 28.1, D 27.0",
                different=different,
            ),
            jc.Claim(
                text="E is at most one point better than D",
                higher="VGG-D",
                lower="VGG-E",
                margin=-0.01,
                published="top-1 error: D 27.0, E 27.3",
                different=different,
            ),
        ),
        seeds=tuple(range(8 if scale == "quick" else 5)),
        metric="validation accuracy" if scale == "full" else "test accuracy",
        note="Quick scale: VGG of three stages, an eighth as wide, on 300 of scikit-learn's digits, 355 to test; it "
        "demonstrates the method." * (scale == "quick"),
        # The full form has the rate of vgg_imagenet.py.
        tuning=None if scale == "full" else jc.Tuning({"optimizer.learning_rate": (0.02, 0.05, 0.1)}),
        matched="epochs",
    )


def net(name: str, scale: jc.Scale):
    """The net with batch norm, and below the full scale with fewer stages and one hidden layer."""
    model = jc.create_model(name, classes=1000 if scale == "full" else 10)
    backbone = model.backbone.clone(norm="batch", kernel_init="he_fan_out")
    if scale == "full":
        return model.clone(backbone=backbone, head=VGG_BN_HEAD)
    stages, width, hidden = (3, 0.125, 64) if scale == "quick" else (4, 0.5, 256)
    return model.clone(backbone=backbone.clone(stages=stages, width=width), head=jc.FC(classes=10, widths=(hidden,)))


def few_digits():
    base = digits(net("vgg11", "quick"), size=16, train="train[:300]")
    return changed(base, duration=jc.epochs(20), evaluate_every=jc.epochs(10), batch_size=30)


def on_cifar10_jpeg():
    base = cifar10_jpeg(net("vgg11", "medium"))
    return changed(base, augment=(jc.PadAndCrop(4), jc.HorizontalFlip()), duration=jc.epochs(20))


def on_imagenet():
    return imagenet(net("vgg11", "full"), rate=0.05)
