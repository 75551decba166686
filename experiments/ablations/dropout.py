"""C6: dropout reduces overfitting.

Papers: Hinton et al. 2012; Krizhevsky et al. 2012 (AlexNet), section 4.2; Lin et al. 2014 (NIN), table 5.
Command: python -m jaxcnn.launch experiments/ablations/dropout.py --quick
Expected: the gap between training and test images shrinks, and the test error falls. Published: error on CIFAR-10 in
NIN 11.59 with FC layers, 10.88 with dropout. Ours: docs/studies.md.
Registered anew: four seeds decided nothing, and both arms had one rate. Now eight seeds, for each arm the rate, of
three, that is best on other training images, and all 10,000 test images.
"""

import dataclasses

import jaxcnn as jc
from jaxcnn.studies.recipes import changed, cifar10, cifar10_jpeg, fashion_mnist


def study(scale: jc.Scale = "full") -> jc.Study:
    base = {"quick": on_fashion_mnist, "medium": on_cifar10_jpeg, "full": on_cifar10}[scale]()
    different = {
        "quick": "a small VGG on 1,000 images of Fashion-MNIST",
        "medium": "VGG-A without its last stage, half as wide, on CIFAR-10 from JPEG files, 20 epochs",
        "full": "VGG-A without its last stage",
    }[scale]
    head = base.model.head
    return jc.Study(
        question="Does dropout reduce overfitting?",
        arms={
            "no dropout": base,
            "dropout 0.5": dataclasses.replace(base, model=base.model.clone(head=head.clone(dropout=0.5))),
        },
        claims=(
            jc.Claim(
                text="dropout lowers the gap between the accuracies on training and test images",
                higher="no dropout",
                lower="dropout 0.5",
                metric="gap",
                published="AlexNet: without it 'our network exhibits substantial overfitting'",
                different=different,
            ),
            jc.Claim(
                text="dropout lowers the gap between the losses",
                higher="no dropout",
                lower="dropout 0.5",
                metric="loss gap",
                published="-",
                different=different,
            ),
            jc.Claim(
                text="dropout raises the test accuracy",
                higher="dropout 0.5",
                lower="no dropout",
                published="NIN on CIFAR-10: error 11.59 without, 10.88 with dropout",
                different=different,
            ),
        ),
        seeds=tuple(range(8 if scale == "quick" else 5)),
        metric="test accuracy",
        probes=(jc.Generalization(),),
        note="No weight decay and no augmentation: dropout is the only regularisation. Training images are measured "
        "after the training, without dropout.",
        tuning=jc.Tuning({"optimizer.learning_rate": (0.01, 0.02, 0.05)}),
        matched="epochs",
    )


def net(hidden: int, **fields):
    head = jc.FC(classes=10, widths=(hidden, hidden))
    return jc.create_model("vgg11", head=head, kernel_init="he_fan_in", **fields)


def on_fashion_mnist():
    return changed(
        fashion_mnist(net(256, stages=3, width=0.125), size=16, train=1000, test=None),
        duration=jc.epochs(40),
        evaluate_every=jc.epochs(20),
        weight_decay=0.0,
    )


def on_cifar10_jpeg():
    experiment = cifar10_jpeg(net(512, stages=4, width=0.5))
    return changed(experiment, duration=jc.epochs(20), weight_decay=0.0)


def on_cifar10():
    return changed(cifar10(net(512, stages=4)), augment=(), weight_decay=0.0)
