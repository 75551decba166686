"""C25: k-nearest neighbours need every training image at test time and still lose to a CNN.

Source: docs/courses.md, S1; Cover & Hart 1967.
Command: python -m jaxcnn.launch experiments/ablations/neighbours.py --quick
Expected: the CNN is more accurate, keeps less and classifies sooner. Published: no figure. Ours:
docs/studies.md.
Registered anew: three seeds decided nothing. Now five, all 10,000 test images, and for the CNN the rate, of three,
that is best on other training images.
"""

from typing import Literal

import jaxcnn as jc
from jaxcnn.studies.recipes import changed, cifar10, fashion_mnist


def study(scale: Literal["quick", "full"] = "full") -> jc.Study:
    quick = scale == "quick"
    if quick:
        cnn = changed(
            fashion_mnist(jc.create_model("lecture_simple"), train=5000, test=None), evaluate_every=jc.epochs(5)
        )
        different = "5,000 images of Fashion-MNIST, two CPU cores"
    else:
        cnn = cifar10(jc.create_model("resnet20_cifar"))
        different = "CIFAR-10"
    arms = {"CNN": cnn} | {f"{k} nearest": jc.Neighbours(cnn, k=k) for k in (1, 5)}
    return jc.Study(
        question="Do nearest neighbours need every training image and still lose to a CNN?",
        arms=arms,
        claims=(
            jc.Claim(
                text="the CNN is more accurate than the nearest neighbour",
                higher="CNN",
                lower="1 nearest",
                published="claimed without a figure",
                different=different,
            ),
            jc.Claim(
                text="the CNN is more accurate than five neighbours",
                higher="CNN",
                lower="5 nearest",
                published="claimed without a figure",
                different=different,
            ),
            jc.Claim(
                text="the neighbours keep more in memory",
                higher="1 nearest",
                lower="CNN",
                metric="megabytes kept",
                published="-",
                different=different,
            ),
            jc.Claim(
                text="the neighbours take longer for a test image",
                higher="1 nearest",
                lower="CNN",
                metric="milliseconds per test image",
                published="-",
                different=different,
            ),
        ),
        seeds=tuple(range(5)),
        metric="test accuracy",
        probes=(jc.Cost(),),
        note="Nothing is drawn in nearest neighbours: the seeds differ in the CNN alone. Times are of one batch of 250 "
        "images, the fastest of several passes.",
        tuning=jc.Tuning({"optimizer.learning_rate": (0.02, 0.05, 0.1)}),
    )
