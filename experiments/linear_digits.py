"""A linear classifier on scikit-learn's embedded digits: one template per class (S2 of docs/courses.md).

Command: python -m jaxcnn.launch experiments/linear_digits.py
Expected: well under the LeNet's accuracy on the same images; measured in docs/results.md.
"""

import jaxcnn as jc


def experiment() -> jc.Experiment:
    return jc.Experiment(
        model=jc.create_model("linear", classes=10),
        data=jc.Data(source=jc.Digits(), image_shape=(8, 8, 1), batch_size=64),
        optimizer=jc.SGD(learning_rate=0.1, momentum=0.9),
        schedule=jc.Cosine(),
        duration=jc.epochs(30),
        evaluate_every=jc.epochs(5),
        log_every=jc.steps(100),
    )
