"""A simple CNN of 20,666 parameters (S5 of docs/courses.md) on Fashion-MNIST.

Data: Xiao, Rasul, Vollgraf, "Fashion-MNIST", 2017; prepare it once with `jaxcnn data prepare fashion_mnist`.
Command: python -m jaxcnn.launch experiments/lecture_simple_fashion_mnist.py
Expected: no published figure; measured in docs/results.md.
"""

import jaxcnn as jc


def experiment() -> jc.Experiment:
    return jc.Experiment(
        model=jc.create_model("lecture_simple", classes=10),
        data=jc.Data(
            source=jc.Tfds("fashion_mnist"),
            image_shape=(28, 28, 1),
            normalize=jc.Normalize(mean=(72.94,), std=(90.02,)),  # of the training set
            batch_size=128,
        ),
        optimizer=jc.Adam(learning_rate=2e-3),
        schedule=jc.Cosine(warmup=jc.steps(200)),
        duration=jc.epochs(10),
        log_every=jc.steps(100),
    )
