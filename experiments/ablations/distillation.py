"""C20: a student that learns from a teacher beats the same net that learns from labels alone.

Paper: Hinton, Vinyals & Dean 2015, sections 2 and 3: soft targets beside the labels.
The teacher comes first, a run of experiments/vgg_fashion_mnist.py with --duration 3epochs --workdir
runs/teacher_fashion_mnist; it sees 54,000 images, the student 2,000 of them. The full form's is one of vgg_cifar10.py
with --head gap --workdir runs/teacher_cifar10.
Command: python -m jaxcnn.launch experiments/ablations/distillation.py --quick
Registered anew: the arms had one rate, and five seeds. Now eight, and for each arm the rate, of three, that is best on
other training images.
Expected: the taught student is more accurate, and one that is taught by random weights is not. Published: 67 errors
of 10,000 on MNIST of a large net, 146 of a small one, 74 of that one taught (section 3). Ours: docs/studies.md.
"""

import dataclasses
from typing import Literal

import jaxcnn as jc
from jaxcnn.studies.recipes import cifar10


def study(scale: Literal["quick", "full"] = "full") -> jc.Study:
    quick = scale == "quick"
    labels, teacher = on_fashion_mnist() if quick else on_cifar10()
    arms = {"labels alone": labels}
    different = (
        "LeNet-5 on 2,000 images of Fashion-MNIST, a narrow VGG teaches" if quick else "CIFAR-10, VGG-16 teaches"
    )
    for name, run in (("taught", teacher.run), ("taught by random weights", None)):
        task = jc.Classification(distillation=dataclasses.replace(teacher, run=run))
        arms[name] = dataclasses.replace(labels, task=task)
    claims = [
        jc.Claim(
            text=text,
            higher="taught",
            lower=other,
            published="MNIST: 67 errors of a large net, 146 of a small one, 74 of that one taught",
            different=different,
        )
        for other, text in (
            ("labels alone", "a taught student beats one that learns from labels alone"),
            ("taught by random weights", "a teacher that has learned teaches more than one of random weights"),
        )
    ]
    return jc.Study(
        question="Does a teacher's soft output teach more than labels do?",
        arms=arms,
        claims=tuple(claims),
        seeds=tuple(range(8 if quick else 5)),
        note="The teacher saw more images than the student: what it knows of them is what it teaches.",
        # The full form has the rate of vgg_cifar10.py.
        tuning=jc.Tuning({"optimizer.learning_rate": (0.02, 0.05, 0.1)}) if quick else None,
        matched="epochs",
    )


def on_fashion_mnist() -> tuple[jc.Experiment, jc.Distillation]:
    net = jc.create_model("vgg11_bn", width=0.375, stages=3, head=jc.GAP(classes=10))
    student = jc.Experiment(
        model=jc.create_model("lenet5", classes=10),
        data=jc.Data(
            source=jc.Tfds("fashion_mnist"),
            train_split="train[:2000]",
            evaluation_splits=("train[90%:]",),
            image_shape=(32, 32, 1),
            augment=(jc.Pad(2), jc.PadAndCrop(2), jc.HorizontalFlip()),
            preprocess=(jc.Pad(2),),
            normalize=jc.Normalize(mean=(72.94,), std=(90.02,)),
            batch_size=50,
        ),
        optimizer=jc.SGD(learning_rate=0.05, momentum=0.9),
        schedule=jc.OneCycle(),
        duration=jc.epochs(20),
        evaluate_every=jc.epochs(5),
        log_every=jc.steps(40),
    )
    return student, jc.Distillation(net, "runs/teacher_fashion_mnist", temperature=4.0, weight=0.9)


def on_cifar10() -> tuple[jc.Experiment, jc.Distillation]:
    net = jc.create_model("vgg16_bn", head=jc.GAP(classes=10))
    student = cifar10(jc.create_model("resnet20_cifar", classes=10))
    return student, jc.Distillation(net, "runs/teacher_cifar10", temperature=4.0, weight=0.9)
