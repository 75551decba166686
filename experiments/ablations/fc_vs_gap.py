"""C12: global average pooling can replace the fully connected layers.

Papers: Lin, Chen, Yan 2014 (Network in Network), section 3.2 and table 5; Zhou et al. 2016 (CAM), table 1.
Command: python -m jaxcnn.launch experiments/ablations/fc_vs_gap.py --quick
Expected: far fewer parameters and a small loss or gain. Published: VGG-GAP 33.4 against 31.2 top-1 error on ImageNet,
GoogLeNet-GAP 35.0 against 31.9 (CAM); NIN 10.41 with GAP, 10.88 with FC and dropout, 11.59 with FC (CIFAR-10). Ours:
docs/studies.md.
Registered anew: every net fitted all digits, so that no difference could show, and all had one rate. Now 400 digits to
train on, eight seeds, and for each arm the rate, of three, that is best on other training digits.
"""

import dataclasses

import jaxcnn as jc
from jaxcnn.studies.recipes import changed, cifar10, cifar10_jpeg, digits


def study(scale: jc.Scale = "full") -> jc.Study:
    fc = jc.FC(classes=10, widths=(512, 512), names=("fc6", "fc7", "fc8"), dropout=0.5)
    heads = {"FC": fc.clone(dropout=0.0), "FC, dropout": fc, "GAP": jc.GAP(classes=10)}
    base = {"quick": few_digits, "medium": on_cifar10_jpeg, "full": on_cifar10}[scale]()
    arms = {name: dataclasses.replace(base, model=base.model.clone(head=head)) for name, head in heads.items()}
    different = {
        "quick": "a small VGG-A on 400 digits of 8x8 pixels",
        "medium": "VGG-A without its last stage, half as wide, on CIFAR-10 from JPEG files, 20 epochs",
        "full": "VGG-A without its last stage",
    }[scale]
    return jc.Study(
        question="Can global average pooling replace the fully connected layers?",
        arms=arms,
        claims=(
            jc.Claim(
                text="GAP has fewer parameters than FC",
                higher="FC, dropout",
                lower="GAP",
                metric="parameters",
                published="VGG-16: 123.6 M of 138.4 M parameters are in its FC layers",
            ),
            jc.Claim(
                text="GAP loses at most one point against FC with dropout",
                higher="GAP",
                lower="FC, dropout",
                margin=-0.01,
                published="error on CIFAR-10 (NIN): 10.41 with GAP, 10.88 with FC; on ImageNet (VGG): 33.4, 31.2",
                different=different,
            ),
            jc.Claim(
                text="GAP does better than FC without dropout",
                higher="GAP",
                lower="FC",
                published="NIN on CIFAR-10: error 10.41 with GAP, 11.59 with FC",
                different=different,
            ),
        ),
        seeds=tuple(range(8 if scale == "quick" else 5)),
        metric="test accuracy",
        note="Quick scale: a VGG-A of three stages, an eighth as wide, on scikit-learn's digits." * (scale == "quick"),
        tuning=jc.Tuning({"optimizer.learning_rate": (0.02, 0.05, 0.1)}),
        matched="epochs",
    )


def few_digits():
    net = jc.create_model("vgg11_bn", stages=3, width=0.125)
    base = digits(net, size=16, train="train[:400]")
    return changed(base, batch_size=40, duration=jc.epochs(20), evaluate_every=jc.epochs(10))


def on_cifar10_jpeg():
    net = jc.create_model("vgg11_bn", stages=4, width=0.5)
    return changed(cifar10_jpeg(net), augment=(jc.PadAndCrop(4), jc.HorizontalFlip()), duration=jc.epochs(20))


def on_cifar10():
    return cifar10(jc.create_model("vgg11_bn", stages=4))
