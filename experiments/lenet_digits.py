"""LeNet-5 on scikit-learn's embedded digits: the first run, on any laptop, without any download.

Paper: LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition", 1998 (the net, in its
modern form: full C3, average pooling, softmax). The 8x8 digits are enlarged to 32x32, and rotated and shifted a little
in training.
Command: python -m jaxcnn.launch experiments/lenet_digits.py
Expected: test accuracy of at least 0.985 (355 images), the project's own bound, measured in docs/results.md.
"""

import jaxcnn as jc


def experiment() -> jc.Experiment:
    return jc.Experiment(
        model=jc.create_model("lenet5", classes=10),
        data=jc.Data(
            source=jc.Digits(),
            image_shape=(32, 32, 1),
            augment=(jc.Resize((32, 32)), jc.Rotate(10.0), jc.PadAndCrop(3)),
            preprocess=(jc.Resize((32, 32)),),
            batch_size=64,
        ),
        optimizer=jc.SGD(learning_rate=0.1, momentum=0.9, weight_decay=5e-4),
        schedule=jc.OneCycle(),
        duration=jc.epochs(30),
        evaluate_every=jc.epochs(5),
        log_every=jc.steps(100),
    )
