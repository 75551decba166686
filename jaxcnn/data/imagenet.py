"""The 1,000 classes of ILSVRC 2012: WordNet ids in label order (which is sorted), and what WordNet calls them."""

import functools
import importlib.resources


@functools.cache
def names() -> dict[str, str]:
    """{"n01440764": "tench, Tinca tinca", ...} in label order, the order of TFDS, torchvision and timm."""
    text = (importlib.resources.files("jaxcnn.data") / "imagenet2012.tsv").read_text()
    return dict(line.split("\t") for line in text.splitlines())


def described(name: str) -> str:
    """A WordNet id followed by what it means, "n02123045 tabby, tabby cat"; any other class name as it is."""
    return " ".join(filter(None, (name, names().get(name))))
