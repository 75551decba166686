"""A multilayer perceptron (S3 of docs/courses.md): 784-2048-1024-10 with ReLU, 3,716,106 parameters at 28x28x1.

Its backbone is linear.Pixels: like the linear classifier it is all head.
"""

from jaxcnn.models.heads import FC

MLP_HEAD = FC(classes=10, widths=(2048, 1024), names=("fc1", "fc2", "fc3"))
