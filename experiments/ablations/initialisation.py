"""C24: He's initialisation lets deep ReLU nets start where Glorot's and LeCun's do not.

Papers: He et al. 2015 (Delving deep into rectifiers), section 2.2 and figures 2 and 3; Glorot & Bengio 2010.
Command: python -m jaxcnn.launch experiments/ablations/initialisation.py --quick
Expected: in a plain net of 30 layers without normalisation the signal keeps its size with variance 2 / fan in and loses
half of its variance in every layer with 1 / fan in, so that only He's starts. Published: with 22 layers both converge,
He's sooner; with 30 layers Glorot's stalls completely (no figure). Ours: docs/studies.md.
Registered anew: from 16 channels to 16 Glorot's and LeCun's have the same variance, so that one claim was counted
twice; and only He's net had been tuned. Now there is one of the two, and each arm has the rate, of four, that leads to
its lowest training loss.
"""

import dataclasses
from typing import Literal

import jaxcnn as jc
from jaxcnn.studies.recipes import changed, cifar10, digits

INITS = {"He": "he_fan_in", "Glorot": "glorot_uniform"}
CHANCE = 2.303  # the loss of ten equally probable classes


def study(scale: Literal["quick", "full"] = "full") -> jc.Study:
    quick = scale == "quick"
    blocks = {6: (2,), 14: (6,)} if quick else {20: (3, 3, 3), 32: (5, 5, 5)}
    shallow, deep = blocks
    base = on_digits() if quick else on_cifar10()
    fields = {"shortcut": "none", "norm": "none"}
    # The head keeps its own: the nets differ in what their convolutions start from.
    model = jc.create_model("resnet20_cifar", **fields)
    arms = {
        f"{name}, {layers} layers": dataclasses.replace(
            base, model=model.clone(backbone=model.backbone.clone(depth=depth, kernel_init=init))
        )
        for layers, depth in blocks.items()
        for name, init in INITS.items()
    }
    different = (
        "14 layers of 16 channels, on digits, eight epochs; the paper has 30 layers on ImageNet"
        if quick
        else "CIFAR-10"
    )
    claims = (
        jc.Claim(
            text="the deep net learns from He's and not from Glorot's: the training loss is 0.5 lower",
            higher=f"Glorot, {deep} layers",
            lower=f"He, {deep} layers",
            metric="train loss",
            margin=0.5,
            published="30 layers: He's converges, Glorot's stalls",
            different=different,
        ),
        jc.Claim(
            text="the advantage over Glorot's is larger in the deep net than in the shallow one",
            higher=f"Glorot, {deep} layers",
            lower=f"He, {deep} layers",
            beyond=(f"Glorot, {shallow} layers", f"He, {shallow} layers"),
            metric="train loss",
            published="22 layers: both converge, He's sooner; 30 layers: only He's",
            different=different,
        ),
    )
    return jc.Study(
        question="Does He's initialisation let a deep ReLU net start where others do not?",
        arms=arms,
        claims=claims,
        seeds=tuple(range(8 if quick else 5)),
        diverged={"train loss": CHANCE, "test accuracy": 0.1},
        note="Plain nets without any normalisation. With as many channels in as out Glorot's variance is LeCun's. "
        + "Quick scale: one stage of 16 channels, on scikit-learn's digits." * quick,
        tuning=jc.Tuning({"optimizer.learning_rate": (0.005, 0.01, 0.02, 0.05)}, metric="train loss"),
        matched="epochs",
    )


def on_digits():
    return changed(
        digits(jc.create_model("resnet20_cifar"), train="train[:1200]"),
        batch_size=16,
        duration=jc.epochs(8),
        evaluate_every=jc.epochs(4),
        log_every=jc.steps(25),
        weight_decay=0.0,
    )


def on_cifar10():
    return changed(cifar10(jc.create_model("resnet20_cifar")), weight_decay=1e-4)
