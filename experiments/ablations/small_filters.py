"""C9: stacked 3x3 convolutions beat one larger filter of the same receptive field, with fewer parameters.

Paper: Simonyan & Zisserman 2015 (VGG), sections 2.3 and 4.1.
Command: python -m jaxcnn.launch experiments/ablations/small_filters.py --quick
Expected: pairs of 3x3 are better than one 5x5, triples better than one 7x7. Published: B with each pair replaced by one
5x5 has a top-1 error 7 points higher; with C channels in and out, 18 C^2 weights against 25 C^2, 27 C^2 against 49 C^2.
Where a stage doubles its width the first convolution of a stack is half as wide: 13.5 C^2 against 12.5 C^2, 22.5 C^2
against 24.5 C^2. Ours: docs/studies.md.
Registered anew: three seeds decided nothing, and all arms had one rate. Now eight seeds, 2,000 training images, for
each arm the rate, of three, that is best on other training images, and all 10,000 test images.
"""

import dataclasses

import jaxcnn as jc
from jaxcnn.models.vgg import VGG_BN_HEAD
from jaxcnn.studies.recipes import changed, cifar10_jpeg, fashion_mnist, imagenet

NETS = {"pairs of 3x3": ("vgg13_bn", "5x5"), "triples of 3x3": ("vgg16_bn", "7x7")}


def study(scale: jc.Scale = "full") -> jc.Study:
    base = {"quick": on_fashion_mnist, "medium": on_cifar10_jpeg, "full": on_imagenet}[scale]()
    different = {
        "quick": "three stages, an eighth as wide, batch norm, Fashion-MNIST",
        "medium": "three stages, half as wide, batch norm, CIFAR-10 from JPEG files",
        "full": "batch norm; central crop",
    }[scale]
    arms, claims = {}, []
    for stack, (name, single) in NETS.items():
        arms[stack] = dataclasses.replace(base, model=net(name, True, scale))
        arms[f"one {single}"] = dataclasses.replace(base, model=net(name, False, scale))
        claims += [
            jc.Claim(
                text=f"{stack} are better than one {single}",
                higher=stack,
                lower=f"one {single}",
                published="5x5: top-1 error 7 points higher than pairs" if single == "5x5" else "not measured",
                different=different,
            ),
            jc.Claim(
                text=f"{stack} have fewer parameters than one {single}",
                higher=f"one {single}",
                lower=stack,
                metric="parameters",
                published="18 C^2 against 25 C^2" if single == "5x5" else "27 C^2 against 49 C^2",
                different="the widths double from stage to stage; the paper's count has equal ones",
            ),
        ]
    return jc.Study(
        question="Are stacked 3x3 convolutions better than one larger filter with the same receptive field?",
        arms=arms,
        claims=tuple(claims),
        seeds=tuple(range(8 if scale == "quick" else 5)),
        metric="validation accuracy" if scale == "full" else "test accuracy",
        note="Pairs: VGG B; triples: VGG D, whose first two stages are pairs, replaced by 5x5.",
        # The full form has the rate of vgg_imagenet.py.
        tuning=None if scale == "full" else jc.Tuning({"optimizer.learning_rate": (0.02, 0.05, 0.1)}),
        matched="epochs",
    )


def net(name: str, stacked: bool, scale: jc.Scale):
    if scale == "full":
        return jc.create_model(name, stacked=stacked, head=VGG_BN_HEAD)
    width, hidden = (0.125, 64) if scale == "quick" else (0.5, 256)
    return jc.create_model(name, stacked=stacked, stages=3, width=width, head=jc.FC(classes=10, widths=(hidden,)))


def on_fashion_mnist():
    """At 28x28, so that no kernel is larger than its map."""
    base = fashion_mnist(net("vgg13_bn", True, "quick"), test=None)
    return changed(base, duration=jc.epochs(8), evaluate_every=jc.epochs(4))


def on_cifar10_jpeg():
    base = cifar10_jpeg(net("vgg13_bn", True, "medium"))
    return changed(base, augment=(jc.PadAndCrop(4), jc.HorizontalFlip()), duration=jc.epochs(20))


def on_imagenet():
    return imagenet(net("vgg13_bn", True, "full"), rate=0.05)
