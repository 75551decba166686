"""A folder in Pascal VOC's layout, of photos that are white where their first box is."""

import numpy as np
from PIL import Image

import jaxcnn as jc
from jaxcnn.data.splits import open_split

SIZE = (40, 60)  # height, width


def painted(boxes, size=SIZE):
    """A black photo with each box (xmin, ymin, xmax, ymax), edges, in white."""
    image = np.zeros((*size, 3), np.uint8)
    for x1, y1, x2, y2 in boxes:
        image[y1:y2, x1:x2] = 255
    return image


def around(image):
    """The edges of what is white in an image."""
    rows, columns = np.flatnonzero(image.max((1, 2)) > 127), np.flatnonzero(image.max((0, 2)) > 127)
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


def xml(objects, size=SIZE):
    """Objects are (name, (xmin, ymin, xmax, ymax), difficult or not)."""
    sides = f"<size><width>{size[1]}</width><height>{size[0]}</height><depth>3</depth></size>" if size else ""
    parts = [
        f"<object>{f'<name>{name}</name>' if name else ''}<difficult>{int(difficult)}</difficult><bndbox>"
        + "".join(
            f"<{edge}>{value}</{edge}>" for edge, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
        )
        + "</bndbox><part><name>head</name><bndbox><xmin>1</xmin></bndbox></part></object>"
        for name, box, difficult in objects
    ]
    return f"<annotation>{sides}{''.join(parts)}</annotation>"


class VOC:
    """A folder of VOC's layout; each photo is white where its first box is."""

    def __init__(self, root):
        self.root, self.names = root, []
        for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
            (root / folder).mkdir(parents=True)
        (root / "classes.txt").write_text("cat\ndog\n")

    def add(self, name, objects, annotation=None, image=None):
        boxes = [(box[0] - 1, box[1] - 1, box[2], box[3]) for _, box, _ in objects[:1] if min(box) > 0]
        Image.fromarray(painted(boxes) if image is None else image).save(self.root / f"JPEGImages/{name}.png")
        (self.root / f"Annotations/{name}.xml").write_text(xml(objects) if annotation is None else annotation)
        self.names.append(name)
        self.write("train", self.names)
        return self

    def write(self, split, names):
        (self.root / f"ImageSets/Main/{split}.txt").write_text("".join(f"{name}\n" for name in names))

    def open(self, split="train", **fields):
        return open_split(jc.VOCDetection(str(self.root), **fields), split)


CAT, DOG = ("cat", (11, 6, 30, 20), False), ("dog", (1, 1, 60, 40), True)
EMPTY = ("cat", (5, 5, 5, 5), False)
