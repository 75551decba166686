"""jaxcnn: convolutional networks for images in JAX, from a linear classifier to EfficientNet."""
