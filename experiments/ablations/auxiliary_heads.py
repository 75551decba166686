"""C11: auxiliary classifiers ease training.

Papers: Szegedy et al. 2015 (GoogLeNet), section 5; Szegedy et al. 2016 (Inception-v3), section 4 and table 3.
Command: python -m jaxcnn.launch experiments/ablations/auxiliary_heads.py --quick
Expected: a lower training loss of the main classifier and a slightly better test accuracy. Published: about 0.5 points
in GoogLeNet, one of the two heads is enough; 0.4 points in Inception-v3 with batch norm. Ours: docs/studies.md.
Registered anew: four seeds decided nothing, and both arms had one rate. Now eight seeds, and for each arm the rate, of
three, that is best on other training images.
"""

from typing import Literal

import jaxcnn as jc
from jaxcnn.models.googlenet import GOOGLENET_AUX
from jaxcnn.studies.recipes import changed, fashion_mnist, imagenet


def study(scale: Literal["quick", "full"] = "full") -> jc.Study:
    quick = scale == "quick"
    different = (
        "two stages of four modules, an eighth as wide, no LRN; Fashion-MNIST, 480 steps" if quick else "other crops"
    )
    return jc.Study(
        question="Do auxiliary classifiers ease training?",
        arms={"no auxiliary heads": arm(quick, auxiliary=False), "auxiliary heads": arm(quick, auxiliary=True)},
        claims=(
            jc.Claim(
                text="with auxiliary heads the main classifier's training loss is lower",
                higher="no auxiliary heads",
                lower="auxiliary heads",
                metric="train loss",
                published="claimed without a figure",
                different=different,
            ),
            jc.Claim(
                text="auxiliary heads raise the accuracy",
                higher="auxiliary heads",
                lower="no auxiliary heads",
                published="about 0.5 points in GoogLeNet",
                different=different,
            ),
        ),
        seeds=tuple(range(8 if quick else 5)),
        metric="test accuracy" if quick else "validation accuracy",
        note="The losses are the main classifier's alone; the parameters include the heads, which training alone uses.",
        # The full form has the paper's rate.
        tuning=jc.Tuning({"optimizer.learning_rate": (0.005, 0.01, 0.02)}) if quick else None,
        matched="epochs",
    )


def arm(quick: bool, auxiliary: bool):
    if not quick:
        return imagenet(jc.create_model("googlenet", **({} if auxiliary else {"aux": {}})), rate=0.01)
    # Without any normalisation, as deep a net as the small images allow: what the heads were made for.
    small = {"widths": (32,), "dropout": 0.0}
    heads = {"inception3b": GOOGLENET_AUX["inception4a"].clone(**small)} if auxiliary else {}
    model = jc.create_model(
        "googlenet",
        aux=heads,
        classes=10,
        modules=("3a", "3b", "4a", "4b"),
        width=0.125,
        norm="none",
        large_kernel=3,
    )
    base = fashion_mnist(model.clone(head=model.head.clone(dropout=0.0)), size=56, train=1000, test=None)
    return changed(base, duration=jc.epochs(24), evaluate_every=jc.epochs(12))
