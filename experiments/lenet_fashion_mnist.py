"""LeNet-5 on Fashion-MNIST.

Paper: LeCun et al. 1998 (the net); data: Xiao, Rasul, Vollgraf, "Fashion-MNIST", 2017, prepared once with
`jaxcnn data prepare fashion_mnist`. 28x28 is padded to 32x32, as the paper pads MNIST.
Command: python -m jaxcnn.launch experiments/lenet_fashion_mnist.py
Expected: test accuracy 0.890 after 5 epochs: a PyTorch LeNet-5 with tanh and this recipe reaches 0.889 and 0.890 on two
seeds; ours is measured in docs/results.md.
"""

import jaxcnn as jc


def experiment() -> jc.Experiment:
    return jc.Experiment(
        model=jc.create_model("lenet5", classes=10),
        data=jc.Data(
            source=jc.Tfds("fashion_mnist"),
            image_shape=(32, 32, 1),
            augment=(jc.Pad(2),),
            preprocess=(jc.Pad(2),),
            normalize=jc.Normalize(mean=(72.94,), std=(90.02,)),  # of the training set
            batch_size=128,
        ),
        optimizer=jc.SGD(learning_rate=0.05, momentum=0.9),
        schedule=jc.OneCycle(),
        duration=jc.epochs(5),
        log_every=jc.steps(100),
    )
