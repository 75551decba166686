"""The class and the box of one object an image: a small VGG with two heads, on twenty classes of Tiny ImageNet.

Papers: Simonyan & Zisserman 2015, appendix A (a box head beside the classifier, the Euclidean loss of the middle and
the sides); Sermanet et al. 2014, section 4. Data: 10,000 training and 1,000 validation images of 64x64 with a box each,
a part of Tiny ImageNet in TFDS's form (tiny_imagenet20: image, label, objects).
Departures, all for two cores: VGG-A without its last stage, a quarter as wide, with batch norm, from random weights, at
48x48 pixels; both heads are trained together, with Adam. The box's loss counts twenty times, since squares of parts of
the image's sides are small numbers.
Command: python -m jaxcnn.launch experiments/localize_tiny_imagenet.py
Expected: more images whose class and box are right than images of a right class whose box is the whole image or one of
the mean size in the middle, which the evaluation prints beside; ours: not run.
"""

import jaxcnn as jc

CLASSES = 20
SIZE = (48, 48)


def experiment() -> jc.Experiment:
    net = jc.create_model("vgg11_bn", stages=4, width=0.25, head=jc.GAP(classes=CLASSES))
    return jc.Experiment(
        model=jc.Localizer(net.backbone, net.head, box_head=jc.RegressionHead(4, widths=(128,), dropout=0.2)),
        task=jc.Localization(jc.CrossEntropy(label_smoothing=0.1), box_weight=20.0),
        data=jc.Data(
            source=jc.Tfds("tiny_imagenet20", objects=True),
            train_split="train",
            evaluation_splits=(),
            test_splits=("validation",),
            image_shape=(*SIZE, 3),
            augment=(jc.EdgeJitter(SIZE, 0.15, value=118), jc.HorizontalFlip()),
            preprocess=(jc.Resize(SIZE),),
            normalize=jc.IMAGENET,
            batch_size=64,
            evaluation_batch_size=100,
        ),
        optimizer=jc.Adam(learning_rate=2e-3),
        schedule=jc.OneCycle(),
        duration=jc.epochs(8),
        log_every=jc.steps(20),
    )
