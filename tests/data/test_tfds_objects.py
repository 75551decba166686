"""The objects of TFDS's sets lie around what they name, whatever the set's own way of counting."""

import io
import os
import pathlib

import numpy as np
import pytest
from PIL import Image

import jaxcnn as jc
from jaxcnn.data.fields import box_fields, with_image
from jaxcnn.data.survey import survey
from tests.data.voc_folder import SIZE, around, painted

BOX = (10, 5, 30, 20)
WIDTH, HEIGHT = SIZE[::-1]


def png(boxes):
    file = io.BytesIO()
    Image.fromarray(painted(boxes)).save(file, "PNG")
    return file.getvalue()


def written(data_dir, name, objects, records):
    """Prepares set `name` with these features of an object; records are lists of objects with a "box" in edges."""
    import tensorflow_datasets as tfds

    class Written(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            inner = {key: tfds.features.ClassLabel(names=value) for key, value in objects.items() if value}
            inner |= {key: np.bool_ for key, value in objects.items() if not value}
            inner["bbox"] = tfds.features.BBoxFeature()
            features = {"image": tfds.features.Image(encoding_format="png"), "objects": tfds.features.Sequence(inner)}
            features["label"] = tfds.features.ClassLabel(names=["cat", "dog"])
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for i, record in enumerate(records):
                boxes = [each["box"] for each in record]
                found = [
                    {key: value for key, value in each.items() if key != "box"} | {"bbox": shares(name, each["box"])}
                    for each in record
                ]
                yield str(i), {"image": png(boxes[:1]), "objects": found, "label": "dog"}

    Written.name = name
    Written(data_dir=str(data_dir), file_format="array_record").download_and_prepare()


def shares(name, box):
    """A box as TFDS's set of this name writes it (tensorflow_datasets/object_detection/voc.py, datasets/kitti)."""
    import tensorflow_datasets as tfds

    xmin, ymin, xmax, ymax = box
    if name == "voc":
        xmin, ymin = xmin + 1, ymin + 1
    if name == "kitti":
        ymin, ymax = HEIGHT - ymax, HEIGHT - ymin
    return tfds.features.BBox(ymin / HEIGHT, xmin / WIDTH, ymax / HEIGHT, xmax / WIDTH)


FORMS = {
    "voc": ({"label": ["cat", "dog"], "pose": ["left"], "is_difficult": None}, {"label": "dog", "pose": "left"}),
    "coco": ({"label": ["cat", "dog"], "is_crowd": None}, {"label": "dog"}),
    "kitti": ({"type": ["Car", "Van"], "occluded": ["no", "yes"]}, {"type": "Van", "occluded": "no"}),
}


@pytest.mark.parametrize("name", FORMS)
def test_boxes_of_every_form_lie_around_what_they_name(tmp_path, name):
    features, values = FORMS[name]
    flags = {key: True for key, names in features.items() if names is None}
    written(tmp_path, name, features, [[values | flags | {"box": BOX}], []])
    examples = jc.Tfds(name, objects=True).open("train", str(tmp_path))
    boxed = [examples[i] for i in range(2)]
    example, other = sorted(boxed, key=lambda each: -len(each["boxes"]))
    np.testing.assert_allclose(example["boxes"], [around(example["image"])], atol=1e-4)
    np.testing.assert_allclose(example["boxes"], [BOX], atol=1e-4)
    assert other["boxes"].shape == (0, 4)
    assert example["classes"].tolist() == [1] and example["classes"].dtype == np.int32
    assert example["difficult"].tolist() == [name == "voc"] and example["crowd"].tolist() == [name == "coco"]
    assert example.get("label") == (None if name == "kitti" else 1)  # kitti's objects are of other classes


def test_what_is_wrong_with_objects_is_named(tmp_path):
    features, values = {"label": ["cat", "dog", "cow"]}, {"label": "cow"}
    written(tmp_path, "farm", features, [[values | {"box": BOX}, {"label": "cat", "box": (3, 3, 3, 9)}]])

    def opened(**fields):
        return jc.Tfds("farm", **{"objects": True, **fields}).open("train", str(tmp_path))

    with pytest.raises(jc.BrokenExample, match=r"farm/train\[0\]: box 1 cat .* has no area"):
        opened()[0]
    dropped = opened(rules=jc.BoxRules(empty="drop"))
    assert dropped[0]["classes"].tolist() == [2]
    notes = survey(dropped, (), with_image((*SIZE, 3), box_fields(2))).notes
    assert [(where, note.what, note.done) for where, note in notes] == [
        ("farm/train[0]", "boxes without area", "dropped")
    ]
    with pytest.raises(jc.BrokenExample, match=r"box 0 is of class 'cow', which is not in the list"):
        opened(classes=("cat", "dog"))[0]
    none = opened(classes=("cat", "dog"), rules=jc.BoxRules(unknown="drop", empty="drop"))
    assert none[0]["boxes"].shape == (0, 4) and none[0]["label"] == 1
    refusing = opened(classes=("cat",), rules=jc.BoxRules(unknown="drop", empty="drop", no_objects="refuse"))
    with pytest.raises(jc.BrokenExample, match="it has no object"):
        refusing[0]
    for fields, match in (
        ({"classes": ("cta",)}, r"no class 'cta'; did you mean 'cat'\?"),
        ({"objects": "object"}, r"not a feature with boxes; did you mean 'objects'\?"),
        ({"rules": jc.BoxRules(no_objects="drop")}, "rules.no_objects is"),
        ({"mask": True}, "give mask or objects"),
    ):
        with pytest.raises(jc.UserError, match=match):
            opened(**fields)


TINY = pathlib.Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser() / "tiny_imagenet20"


@pytest.mark.skipif(not TINY.exists(), reason=f"needs {TINY}")
def test_tiny_imagenet_has_one_box_an_image_and_its_label():
    examples = jc.Tfds("tiny_imagenet20", objects=True).open("train[:1%]")
    assert len(examples) == 100 and len(examples.classes) == 20
    for i in range(0, 100, 10):
        example = examples[i]
        assert example["boxes"].shape == (1, 4) and example["classes"].tolist() == [example["label"]]
        assert np.allclose(example["boxes"], example["boxes"].round(), atol=1e-4)  # whole pixels, as shares of 64
