"""C2: a linear classifier learns one template per class and breaks on shifted or cropped images; a CNN does not.

Source: docs/courses.md, S2 (templates) and S4 (why convolutions).
Command: python -m jaxcnn.launch experiments/ablations/templates.py --quick
Expected: trained on centred images, the linear net loses much more accuracy than the CNNs when the test images are
moved or enlarged. Published: no figure. Ours: docs/studies.md.
Registered anew: three seeds decided nothing, and all arms had one rate. Now eight seeds, 3,000 training images, and for
each arm the rate, of three, that is best on other, centred, training images.
"""

import dataclasses

import jaxcnn as jc
from jaxcnn.studies.recipes import changed, cifar10, cifar10_jpeg, fashion_mnist

EVERY = jc.epochs(5)


def study(scale: jc.Scale = "full") -> jc.Study:
    quick = scale == "quick"
    vgg = {"stages": 3, "width": 0.125} if quick else {"stages": 4}
    models = {
        "linear": jc.create_model("linear"),
        "CNN, FC head": jc.create_model("lecture_simple"),
        "CNN, GAP head": jc.create_model("vgg11_bn", head=jc.create_model("resnet20_cifar").head, **vgg),
    }
    # Centred images only: an augmentation that moves them would teach what is to be tested.
    if quick:
        base = changed(
            fashion_mnist(models["linear"], train=3000, test=None), optimizer=jc.Adam(), evaluate_every=EVERY
        )
        pixels, size = 3, 22
    else:
        base = cifar10_jpeg(models["linear"]) if scale == "medium" else cifar10(models["linear"])
        base = changed(base, augment=(), optimizer=jc.Adam(), duration=jc.epochs(30))
        pixels, size = 4, 24
    different = {
        "quick": "3,000 images of Fashion-MNIST; no augmentation",
        "medium": "CIFAR-10 from JPEG files, without augmentation",
        "full": "CIFAR-10 without augmentation",
    }[scale]
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
        seeds=tuple(range(8 if quick else 5)),
        metric="test accuracy",
        probes=(jc.Shifted(pixels), jc.Cropped(size)),
        note=f"Test images moved by {pixels} pixels in four directions, or their middle {size}x{size} enlarged.",
        tuning=jc.Tuning({"optimizer.learning_rate": (5e-4, 2e-3, 8e-3)}),
        matched="epochs",
    )
