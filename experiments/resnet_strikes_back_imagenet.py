"""ResNet strikes back: the training procedures A1, A2 and A3 for ResNet-50 on ImageNet.

Paper: Wightman, Touvron & Jegou 2021, Table 2: LAMB, batch 2048, half a cosine after 5 epochs of warm-up, binary
cross-entropy, RandAugment, mixup or CutMix 1.0, evaluated on 224 pixels of 0.95 of the image. A1 and A2: 600 and 300
epochs on 224 pixels, rate 5e-3, stochastic depth 0.05, three views of each image; A3: 100 epochs on 160, rate 8e-3.
Weight decay 0.01, 0.02, 0.02; A1 alone smooths labels, by 0.1. Gradients are clipped at a norm of 1, which timm's LAMB
does by default.
Departures: RandAugment's space is torchvision's, at a level without noise (timm: magnitude 7 or 6 of 10 with deviation
0.5); each image is mixed apart, where timm mixes a batch by one share; binary targets are the shares, where timm can
make whole yeses of them; stochastic depth grows from 1/16 of its rate and not from 0; crops are resampled bicubically,
not by a method that is drawn; the cosine ends at 0 and not at 1e-6.
Data: ILSVRC 2012, see docs/data.md.
Command: python -m jaxcnn.launch experiments/resnet_strikes_back_imagenet.py --procedure A3
Expected: A1 80.4%, A2 79.8%, A3 78.1% top-1 validation accuracy, ResNet-50 on 224 pixels (Table 1); ours: not run.
Devices and hours: 4 V100 with 32 GB 110 hours, A2 55 hours; 4 V100 with 16 GB 15 hours for A3 (Table 1; A1 is "4.6
days" there); ours: not run.
"""

from typing import Literal

import jaxcnn as jc

# Training size, epochs, rate, weight decay, label smoothing, stochastic depth, repeats, RandAugment of 10, mixup.
TABLE_2 = {
    "A1": (224, 600, 5e-3, 0.01, 0.1, 0.05, 3, 7, 0.2),
    "A2": (224, 300, 5e-3, 0.02, 0.0, 0.05, 3, 7, 0.1),
    "A3": (160, 100, 8e-3, 0.02, 0.0, 0.0, 0, 6, 0.1),
}


def experiment(
    procedure: Literal["A1", "A2", "A3"] = "A3",
    dtype: Literal["float32", "bfloat16"] = "bfloat16",
) -> jc.Experiment:
    size, epochs, rate, decay, smoothing, drop_path, repeats, magnitude, mixup = TABLE_2[procedure]
    return jc.Experiment(
        model=jc.create_model("resnet50", classes=1000, drop_path=drop_path, dtype=dtype),
        task=jc.Classification(jc.BinaryCrossEntropy(label_smoothing=smoothing), mix=(jc.Mixup(mixup), jc.CutMix(1.0))),
        data=jc.Data(
            source=jc.Tfds("imagenet2012"),
            train_split="train",
            evaluation_splits=(),
            test_splits=("validation",),
            image_shape=(size, size, 3),
            evaluation_shape=(224, 224, 3),
            augment=(
                jc.RandomResizedCrop(size, method="bicubic"),
                jc.HorizontalFlip(),
                jc.RandAugment(2, level=3 * magnitude, method="bilinear"),
            ),
            preprocess=(jc.Resize(235, method="bicubic"), jc.CenterCrop(224)),  # 224 of 0.95
            normalize=jc.IMAGENET,
            batch_size=2048,
            repeats=repeats,
            workers=16,
        ),
        optimizer=jc.LAMB(learning_rate=rate, weight_decay=decay),
        schedule=jc.Cosine(warmup=jc.epochs(5)),
        clip_norm=1.0,
        duration=jc.epochs(epochs),
        log_every=jc.steps(100),
    )
