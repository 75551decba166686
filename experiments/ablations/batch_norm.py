"""C14: batch normalisation speeds up convergence and permits larger rates and a worse initialisation.

Paper: Ioffe & Szegedy 2015, sections 3.3 and 4.2, figure 2 and table.
Command: python -m jaxcnn.launch experiments/ablations/batch_norm.py --quick
Expected: with batch norm the net reaches an accuracy in fewer steps, learns at rates at which the other does not, and
from weights from which the other does not. Published: steps to 72.2% on ImageNet: Inception 31.0 M, with batch norm
13.3 M, at five times the rate 2.1 M. Ours: docs/studies.md. How it depends on the batch: batch_size.py.
Registered anew: the course notes' six convolutions of sigmoids (docs/courses.md, S7) stay at chance without batch norm
at every rate, so that nothing was compared, and with momentum 0.9 the rate 1 was too high for both. Now a VGG of ReLUs,
which learns without it too, and no momentum.
"""

import jaxcnn as jc
from jaxcnn.studies.recipes import changed, cifar10, cifar10_jpeg, fashion_mnist

RATES = (0.01, 0.1, 1.0)
THRESHOLD = 0.7
METRIC = "test accuracy"


def study(scale: jc.Scale = "full") -> jc.Study:
    base = {"quick": on_fashion_mnist, "medium": on_cifar10_jpeg, "full": on_cifar10}[scale]()
    arms = {}
    for norm, words in (("none", "no norm"), ("batch", "batch norm")):
        for rate in RATES:
            arms[f"{words}, rate {rate:g}"] = changed(base, model=net(norm, scale), learning_rate=rate)
        poor = net(norm, scale, kernel_init="normal_0.01")
        arms[f"{words}, poor start"] = changed(base, model=poor, learning_rate=0.1)
    data = {"quick": "4,000 images of Fashion-MNIST", "medium": "CIFAR-10 from JPEG files", "full": "CIFAR-10"}[scale]
    different = f"VGG-A of three stages, SGD without momentum, {data}"
    return jc.Study(
        question="Does batch normalisation speed up convergence and permit larger rates and worse initialisation?",
        arms=arms,
        claims=(
            jc.Claim(
                text="at the rate 0.1 the net with batch norm needs fewer epochs",
                higher="no norm, rate 0.1",
                lower="batch norm, rate 0.1",
                metric=f"epochs to train accuracy {THRESHOLD:g}",
                published="steps to 72.2%: Inception 31.0 M, with batch norm 13.3 M",
                different=different,
            ),
            jc.Claim(
                text="with batch norm ten times the rate needs still fewer epochs",
                higher="batch norm, rate 0.1",
                lower="batch norm, rate 1",
                metric=f"epochs to train accuracy {THRESHOLD:g}",
                published="steps to 72.2%: 13.3 M, at five times the rate 2.1 M",
                different=different,
            ),
            jc.Claim(
                text="at the rate 1 the net with batch norm is at least ten points better",
                higher="batch norm, rate 1",
                lower="no norm, rate 1",
                margin=0.1,
                published="Inception at five times the rate: parameters reach machine infinity",
                different=different,
            ),
            jc.Claim(
                text="from kernels of N(0, 0.01^2) the net with batch norm is at least ten points better",
                higher="batch norm, poor start",
                lower="no norm, poor start",
                margin=0.1,
                published="claimed without a figure",
                different=different,
            ),
        ),
        seeds=tuple(range(8 if scale == "quick" else 5)),
        metric=METRIC,
        reach={"train accuracy": THRESHOLD},
        diverged={METRIC: 0.1, f"epochs to train accuracy {THRESHOLD:g}": base.duration.amount},
        note="A run that never reaches the training accuracy counts with its whole length, and so does one that "
        "diverges. The rate is what is compared, so that no arm is tuned. Kernels start from He's initialisation, but "
        "for the poor start, which has the rate 0.1.",
        matched="epochs",
    )


def net(norm: str, scale: jc.Scale, kernel_init: str = "he_fan_in"):
    width, hidden = {"quick": (0.125, 64), "medium": (0.5, 256), "full": (1.0, 512)}[scale]
    head = jc.FC(classes=10, widths=(hidden,))
    return jc.create_model("vgg11", head=head, norm=norm, stages=3, width=width, kernel_init=kernel_init)


def on_fashion_mnist():
    return changed(
        fashion_mnist(net("batch", "quick"), size=16, train=4000, test=None),
        schedule=jc.Constant(),
        momentum=0.0,
        weight_decay=0.0,
        log_every=jc.steps(4),
        duration=jc.epochs(5),
        evaluate_every=jc.epochs(5),
    )


def on_cifar10_jpeg():
    return changed(
        cifar10_jpeg(net("batch", "medium")),
        schedule=jc.Constant(),
        momentum=0.0,
        weight_decay=0.0,
        log_every=jc.steps(16),
        duration=jc.epochs(20),
    )


def on_cifar10():
    return changed(
        cifar10(net("batch", "full")),
        schedule=jc.Constant(),
        augment=(),
        momentum=0.0,
        weight_decay=0.0,
        log_every=jc.steps(39),
        duration=jc.epochs(40),
    )
