"""The first three stages of VGG-A, narrow, with batch norm and global average pooling, on augmented Fashion-MNIST.

Paper: Simonyan & Zisserman 2015 (the net, cut to three stages of 3/8 its widths); data: Xiao, Rasul, Vollgraf,
"Fashion-MNIST", 2017, prepared once with `jaxcnn data prepare fashion_mnist`.
Command: python -m jaxcnn.launch experiments/vgg_fashion_mnist.py
Expected: at least 0.92 test accuracy, the project's own bound; measured in docs/results.md.
"""

import jaxcnn as jc


def experiment(width: float = 0.375) -> jc.Experiment:
    return jc.Experiment(
        model=jc.create_model("vgg11_bn", width=width, stages=3, head=jc.GAP(classes=10)),
        data=jc.Data(
            source=jc.Tfds("fashion_mnist"),
            image_shape=(32, 32, 1),
            augment=(jc.Pad(2), jc.PadAndCrop(2), jc.HorizontalFlip()),
            preprocess=(jc.Pad(2),),
            normalize=jc.Normalize(mean=(72.94,), std=(90.02,)),  # of the training set
            batch_size=128,
        ),
        optimizer=jc.SGD(learning_rate=0.1, momentum=0.9, weight_decay=5e-4),
        schedule=jc.OneCycle(),
        task=jc.Classification(jc.CrossEntropy(label_smoothing=0.05)),
        duration=jc.epochs(12),
        log_every=jc.steps(100),
    )
