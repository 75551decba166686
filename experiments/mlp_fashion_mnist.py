"""The MLP 784-2048-1024-10 of 3,716,106 parameters (S3 of docs/courses.md), on Fashion-MNIST.

Data: Xiao, Rasul, Vollgraf, "Fashion-MNIST", 2017; prepare it once with `jaxcnn data prepare fashion_mnist`.
Command: python -m jaxcnn.launch experiments/mlp_fashion_mnist.py
Expected: the paper's Table 3 has 0.871 for its best MLP (100 hidden units, ReLU); measured in docs/results.md.
"""

import jaxcnn as jc


def experiment() -> jc.Experiment:
    return jc.Experiment(
        model=jc.create_model("mlp", classes=10),
        data=jc.Data(
            source=jc.Tfds("fashion_mnist"),
            image_shape=(28, 28, 1),
            normalize=jc.Normalize(mean=(72.94,), std=(90.02,)),  # of the training set
            batch_size=128,
        ),
        optimizer=jc.Adam(learning_rate=1e-3),
        schedule=jc.Cosine(warmup=jc.steps(200)),
        duration=jc.epochs(10),
        log_every=jc.steps(100),
    )
