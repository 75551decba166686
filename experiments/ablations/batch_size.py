"""C14: batch normalisation depends on the batch size, layer normalisation does not.

Papers: Ioffe & Szegedy 2015; Ba et al. 2016 (layer normalisation); Wu & He 2018, figure 1, for the dependence.
Command: python -m jaxcnn.launch experiments/ablations/batch_size.py --quick
Expected: from statistics over 50 images to statistics over 2, batch norm loses accuracy and layer norm does not.
Published, ResNet-50 on ImageNet (Wu & He 2018): batch norm's error 23.6 at 32 images per worker, 34.7 at 2; group
norm's 24.1 and 24.1. Ours: docs/studies.md.
Registered anew: a batch of 2 also had 25 times as many updates as one of 50. Now every update is of 50 images, cut into
microbatches of 2, each of which is normalised by itself, as on workers with 2 images each; and each arm has the rate,
of three, that is best on other training images.
"""

import jaxcnn as jc
from jaxcnn.studies.recipes import changed, cifar10, cifar10_jpeg, digits

LARGE, SMALL = 50, 2


def study(scale: jc.Scale = "full") -> jc.Study:
    arms = {}
    for norm in ("batch", "layer"):
        base = {"quick": on_digits, "medium": on_cifar10_jpeg, "full": on_cifar10}[scale](norm)
        arms[f"{norm} norm, batch of {LARGE}"] = base
        arms[f"{norm} norm, batch of {SMALL}"] = changed(base, accumulate=LARGE // SMALL)
    different = {
        "quick": "ResNet-8, half as wide, on digits of 8x8 pixels",
        "medium": "ResNet-20 on CIFAR-10 from JPEG files, 10 epochs",
        "full": "ResNet-20 on CIFAR-10",
    }[scale]
    return jc.Study(
        question="Does batch normalisation depend on the batch size, and layer normalisation not?",
        arms=arms,
        claims=(
            jc.Claim(
                text=f"batch norm loses accuracy with a batch of {SMALL}",
                higher=f"batch norm, batch of {LARGE}",
                lower=f"batch norm, batch of {SMALL}",
                published="ResNet-50: error 23.6 at 32 images per worker, 34.7 at 2",
                different=different,
            ),
            jc.Claim(
                text=f"layer norm loses at most one point with a batch of {SMALL}",
                higher=f"layer norm, batch of {SMALL}",
                lower=f"layer norm, batch of {LARGE}",
                margin=-0.01,
                published="ResNet-50 with group norm: error 24.1 at 32 and at 2",
                different=different,
            ),
            jc.Claim(
                text="batch norm loses more than layer norm",
                higher=f"batch norm, batch of {LARGE}",
                lower=f"batch norm, batch of {SMALL}",
                beyond=(f"layer norm, batch of {LARGE}", f"layer norm, batch of {SMALL}"),
                published="ResNet-50: batch norm 11.1 points, group norm none",
                different=different,
            ),
        ),
        seeds=tuple(range(8 if scale == "quick" else 5)),
        metric="test accuracy",
        diverged={"test accuracy": 0.1},
        note=f"Every update is of {LARGE} images; a batch of {SMALL} is the part over which batch norm takes its "
        "statistics.",
        tuning=jc.Tuning({"optimizer.learning_rate": (0.02, 0.05, 0.1)}),
        matched="steps",
    )


def net(norm: str, **fields):
    return jc.create_model("resnet20_cifar", norm=norm, **fields)


def on_digits(norm: str):
    """Maps of 8x8 to 2x2 pixels, so that two images give few values."""
    base = digits(net(norm, depth=(1, 1, 1), width=0.5), train="train[:1200]")
    return changed(base, batch_size=LARGE, duration=jc.epochs(8), evaluate_every=jc.epochs(4), weight_decay=1e-4)


def on_cifar10_jpeg(norm: str):
    return changed(cifar10_jpeg(net(norm), batch=LARGE), duration=jc.epochs(10), weight_decay=1e-4)


def on_cifar10(norm: str):
    return changed(cifar10(net(norm)), batch_size=LARGE, weight_decay=1e-4)
