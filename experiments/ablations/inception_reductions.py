"""C10: 1x1 reductions cut the cost of inception without losing accuracy.

Paper: Szegedy et al. 2015 (GoogLeNet), section 4 and figure 2; docs/courses.md, C10, for the counts.
Command: python -m jaxcnn.launch experiments/ablations/inception_reductions.py --quick
Expected: far fewer multiply-adds, the same accuracy. Published: 112.9 M against 5.3 M multiply-adds for a layer; no
accuracy. Ours: docs/studies.md.
Registered anew: both arms had one rate. Now each has the rate, of three, that is best on other training images, eight
seeds, and all 10,000 test images.
"""

from typing import Literal

import jaxcnn as jc
from jaxcnn.studies.recipes import changed, fashion_mnist, imagenet


def study(scale: Literal["quick", "full"] = "full") -> jc.Study:
    quick = scale == "quick"
    arms = {}
    for name, naive in {"with reductions": False, "naive": True}.items():
        fields = {"modules": ("3a", "3b"), "width": 0.125, "classes": 10, "dropout": 0.0} if quick else {}
        model = jc.create_model("googlenet_bn", aux={}, naive=naive, large_kernel=5, **fields)
        if quick:
            base = fashion_mnist(model, size=56, train=1000, test=None)
            arms[name] = changed(base, duration=jc.epochs(8), evaluate_every=jc.epochs(4))
        else:
            arms[name] = imagenet(model)
    different = "two modules, an eighth as wide, Fashion-MNIST at 56x56" if quick else "batch norm"
    return jc.Study(
        question="Do 1x1 reductions cut the cost of inception without losing accuracy?",
        arms=arms,
        claims=(
            jc.Claim(
                text="the naive net takes more multiply-adds",
                higher="naive",
                lower="with reductions",
                metric="multiply-adds",
                published="a layer: 112.9 M without, 5.3 M with a reduction (course notes)",
                different=different,
            ),
            jc.Claim(
                text="reductions lose at most one point",
                higher="with reductions",
                lower="naive",
                margin=-0.01,
                published="claimed without a figure",
                different=different,
            ),
        ),
        seeds=tuple(range(8 if quick else 5)),
        metric="test accuracy" if quick else "validation accuracy",
        note="Quick scale: GoogLeNet's stem and its modules 3a and 3b." if quick else "",
        # The full form has the paper's rate.
        tuning=jc.Tuning({"optimizer.learning_rate": (0.02, 0.05, 0.1)}) if quick else None,
        matched="epochs",
    )
