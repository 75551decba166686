"""C1: a CNN beats a multilayer perceptron with far fewer parameters.

Source: docs/courses.md, S3 to S5; LeCun et al. 1998, section II, for the argument.
Command: python -m jaxcnn.launch experiments/ablations/cnn_vs_mlp.py --quick
Expected: the CNNs are more accurate with a fraction of the parameters. Published: no figure. Ours:
docs/studies.md.
Registered anew: all had one rate, at which the sigmoid layer of the lectures' CNN did not fit the training images in
400 steps. Now each has the optimizer, of three, that is best on other training images; and colour photos, since clothes
in gray are easy for an MLP.
"""

import dataclasses

import jaxcnn as jc
from jaxcnn.studies.recipes import changed, cifar10, cifar10_jpeg


def study(scale: jc.Scale = "full") -> jc.Study:
    base = {"quick": few_images, "medium": on_cifar10_jpeg, "full": on_cifar10}[scale]()
    different = {
        "quick": "2,000 training images of CIFAR-10 from JPEG files, at 28x28",
        "medium": "CIFAR-10 from JPEG files, 20 epochs",
        "full": "CIFAR-10",
    }[scale]
    # The arm's name is in claims that were settled before the run, so it stays (docs/courses.md).
    models = {"MLP": base.model, "the lectures' CNN": jc.create_model("lecture_simple"), "small VGG": small_vgg(scale)}
    claims = []
    for cnn in ("the lectures' CNN", "small VGG"):
        claims += [
            jc.Claim(
                text=f"{cnn} has fewer parameters than the MLP",
                higher="MLP",
                lower=cnn,
                metric="parameters",
                published="28x28x1: MLP 3,716,106, the course notes' CNN 20,666",
                different=different,
            ),
            jc.Claim(
                text=f"{cnn} is more accurate than the MLP",
                higher=cnn,
                lower="MLP",
                published="claimed without a figure",
                different=different,
            ),
        ]
    return jc.Study(
        question="Does a CNN beat a multilayer perceptron with far fewer parameters?",
        arms={name: dataclasses.replace(base, model=model) for name, model in models.items()},
        claims=tuple(claims),
        seeds=tuple(range(8 if scale == "quick" else 5)),
        metric="test accuracy",
        tuning=jc.Tuning(
            {
                "optimizer": (
                    jc.SGD(learning_rate=0.02, momentum=0.9, weight_decay=5e-4),
                    jc.SGD(learning_rate=0.1, momentum=0.9, weight_decay=5e-4),
                    jc.Adam(learning_rate=2e-3),
                )
            }
        ),
        matched="epochs",
    )


def small_vgg(scale: jc.Scale):
    if scale == "quick":
        return jc.create_model("vgg11_bn", stages=3, width=0.125, head=jc.FC(classes=10, widths=(64,)))
    return jc.create_model("vgg11_bn", stages=4, width=0.5, head=jc.FC(classes=10, widths=(256,), dropout=0.5))


def few_images():
    base = cifar10_jpeg(jc.create_model("mlp"), size=28, train=2000, validation=2000, batch=50)
    return changed(base, duration=jc.epochs(10), evaluate_every=jc.epochs(5))


def on_cifar10_jpeg():
    return changed(cifar10_jpeg(jc.create_model("mlp")), duration=jc.epochs(20))


def on_cifar10():
    return cifar10(jc.create_model("mlp"))
