"""Masks from files: VOC's folders, paired folders and TFDS give what was painted, or name what is wrong."""

import dataclasses
import io
import os
import pathlib
import pickle

import numpy as np
import pytest
from PIL import Image

from jaxcnn.commands.data import check as check_command
from jaxcnn.data.examples import BrokenExample, Examples, Source
from jaxcnn.data.fields import Field, with_image
from jaxcnn.data.masks import MaskValues, decode_mask
from jaxcnn.data.paired_folders import PairedFolders
from jaxcnn.data.pipeline import EvaluationBatches
from jaxcnn.data.splits import open_split, shared
from jaxcnn.data.survey import check
from jaxcnn.data.tfds import Tfds
from jaxcnn.data.transforms import PadTo
from jaxcnn.data.voc import CLASSES, VOCSegmentation
from jaxcnn.errors import UserError

CAMVID = pathlib.Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser().parent / "camvid"
NAMES = ("ground", "tree", "house")
PALETTE = [0, 0, 0, 200, 0, 0, 0, 200, 0] + [9, 9, 9] * 253
MASK = np.array([[0, 1, 2, 255], [2, 2, 0, 1], [0, 0, 1, 1]], np.uint8)


def image_file(i, size=(3, 4)):
    return Image.fromarray(np.full((*size, 3), 10 * i, np.uint8))


def palette(mask):
    image = Image.fromarray(mask, "P")
    image.putpalette(PALETTE)
    return image


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def put(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


# Decoding.


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_palette_image_is_read_by_its_indices(bits):
    mask = MASK % (1 << bits) if bits < 8 else MASK
    assert decode_mask(encoded(palette(mask), bits=bits)).tolist() == mask.tolist()


def test_a_transparent_palette_and_a_grey_image_give_their_numbers():
    assert decode_mask(encoded(palette(MASK), transparency=0)).tolist() == MASK.tolist()
    for kind in ("PNG", "BMP", "TIFF"):
        assert decode_mask(encoded(Image.fromarray(MASK), kind)).tolist() == MASK.tolist()
    assert decode_mask(encoded(Image.fromarray(MASK > 0))).tolist() == (MASK > 0).tolist()


@pytest.mark.parametrize("bits", [2, 4])
def test_the_levels_of_a_grey_image_of_few_bits_are_not_spread(bits):
    import struct
    import zlib

    rows, width = np.array([[0, 1, 2, 3], [3, 2, 1, 0]], np.uint8), 4 * bits // 8
    numbers = [sum(value << bits * (3 - place) for place, value in enumerate(row)) for row in rows.tolist()]
    packed = b"".join(b"\0" + number.to_bytes(width) for number in numbers)

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 2, bits, 0, 0, 0, 0))
    data += chunk(b"IDAT", zlib.compress(packed)) + chunk(b"IEND", b"")
    assert decode_mask(data).tolist() == rows.tolist()


PNG = encoded(palette(np.arange(64 * 64, dtype=np.uint32).astype(np.uint8).reshape(64, 64)))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "empty"),
        (b"no image", "cannot identify"),
        (PNG[: len(PNG) // 2], "."),
        (encoded(image_file(1)), "stored as RGB.*grey or a palette"),
        (encoded(Image.fromarray(MASK.astype(np.uint16))), "stored as I;16.*8 bits"),
        (encoded(Image.fromarray(MASK), "JPEG"), "JPEG.*save masks as PNG"),
    ],
)
def test_what_is_not_a_mask_is_refused_with_the_cause(data, text):
    with pytest.raises(ValueError, match=text):
        decode_mask(data)


def test_values_become_labels():
    black_and_white = np.array([[0, 255], [255, 0]], np.uint8)
    assert MaskValues(2, (0, 255)).to_classes(black_and_white).tolist() == [[0, 1], [1, 0]]
    counted = MaskValues(2, (1, 2), (0, 255)).to_classes(np.array([[0, 1], [2, 255]], np.uint8))
    assert counted.tolist() == [[255, 0], [1, 255]]
    assert MaskValues(3).to_classes(MASK) is MASK
    with pytest.raises(ValueError, match=r"value 2, which neither a class has \(0, 1\) nor ignored pixels \(7, 255\)"):
        MaskValues(2, ignored=(7, 255)).to_classes(MASK)


@pytest.mark.parametrize(
    "wrong", [(0,), (256,), (2, (0,)), (2, (1, 1)), (2, (0, 256)), (2, None, (-1,))], ids=lambda wrong: repr(wrong)
)
def test_values_that_cannot_be_are_refused(wrong):
    with pytest.raises(UserError):
        MaskValues(*wrong)


# Folders.


@pytest.fixture
def voc(tmp_path):
    root = tmp_path / "tiny"
    for i in range(7):
        put(root / f"JPEGImages/{i:03}.jpg", image_file(i))
        put(root / f"SegmentationClass/{i:03}.png", palette(np.roll(MASK, i, 1)))
    lists = root / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("004\n000 \n\n002\n001\n")
    (lists / "val.txt").write_text("003\r\n005")
    (root / "classes.txt").write_text("ground\ntree\nhouse\n")
    return root


@pytest.fixture
def pairs(tmp_path):
    root = tmp_path / "pairs"
    for split, count in (("train", 4), ("test", 2)):
        for i in range(count):
            put(root / f"{split}/images/{i}.png", image_file(i))
            put(root / f"{split}/masks/{i}_class.png", palette(np.roll(MASK, i, 1)))
    return PairedFolders(f"{root}/{{split}}/images", f"{root}/{{split}}/masks", NAMES, mask_suffix="_class")


def right(examples, numbers):
    assert isinstance(examples, Examples) and examples.classes == NAMES and len(examples) == len(numbers)
    copy = pickle.loads(pickle.dumps(examples))
    for i, number in enumerate(numbers):
        example = copy[i]
        np.testing.assert_array_equal(example["mask"], np.roll(MASK, number, 1))
        assert abs(int(example["image"].mean()) - 10 * number) <= 1 and example["image"].shape == (3, 4, 3)
    with pytest.raises(IndexError):
        examples[len(numbers)]


def test_vocs_folders(voc):
    source = VOCSegmentation(str(voc))
    assert isinstance(source, Source)
    right(source.open("train"), [4, 0, 2, 1])
    right(source.open("val"), [3, 5])
    examples = source.open("val")
    assert (examples.name, examples.split) == ("tiny", "val") and examples.where(0).endswith("JPEGImages/003.jpg")
    (voc / "classes.txt").unlink()
    assert source.open("val").classes == CLASSES and len(CLASSES) == 21
    assert dataclasses.replace(source, classes=NAMES).open("val").classes == NAMES
    assert dataclasses.replace(source, classes=NAMES, channels=1).open("val")[0]["image"].shape == (3, 4, 1)


def test_the_version_follows_the_files_and_not_their_place(voc, tmp_path):
    version = VOCSegmentation(str(voc)).open("train").version
    os.rename(voc, tmp_path / "moved")
    moved = VOCSegmentation(str(tmp_path / "moved"))
    assert moved.open("train").version == version != moved.open("val").version
    put(tmp_path / "moved/SegmentationClass/002.png", palette(np.tile(MASK, (9, 9))))
    assert moved.open("train").version != version


def test_splits_are_cut_and_joined(voc, pairs):
    cut = [open_split(VOCSegmentation(str(voc)), part) for part in ("train[:75%]", "train[75%:]")]
    assert sorted(example.where(i)[-7:] for example in cut for i in range(len(example))) == [
        f"{n:03}.jpg" for n in (0, 1, 2, 4)
    ]
    assert [len(part) for part in cut] == [3, 1] and len(open_split(pairs, "train+test")) == 6


def test_images_that_two_lists_share_are_counted(voc):
    """VOC's trainval holds val: to choose by what is trained on is warned of (runs/warnings.py)."""
    source = VOCSegmentation(str(voc))
    (voc / "ImageSets/Segmentation/trainval.txt").write_text("000\n001\n002\n003\n004\n005\n")
    val, both = source.open("val"), source.open("trainval")
    assert shared(val, both) == shared(both, val) == 2 and shared(source.open("train"), val) == 0
    assert shared(open_split(source, "trainval[:50%]"), val) + shared(open_split(source, "trainval[50%:]"), val) == 2
    assert shared(open_split(source, "train+val"), both) == 6


def test_paired_folders(pairs, tmp_path):
    right(pairs.open("train"), [0, 1, 2, 3])
    right(pairs.open("test"), [0, 1])
    assert pairs.open("test").name == "pairs" and pairs.open("train").version != pairs.open("test").version
    whole = PairedFolders(
        f"{tmp_path}/pairs/train/images", f"{tmp_path}/pairs/train/masks", NAMES, mask_suffix="_class"
    )
    right(whole.open("train"), [0, 1, 2, 3])
    assert len(open_split(whole, "train[:50%]")) == 2


def test_images_and_masks_in_one_folder(tmp_path):
    for i in range(3):
        put(tmp_path / f"all/{i}.jpg", image_file(i))
        put(tmp_path / f"all/{i}_L.png", palette(np.roll(MASK, i, 1)))
    right(PairedFolders(f"{tmp_path}/all", f"{tmp_path}/all", NAMES, mask_suffix="_L").open("train"), [0, 1, 2])


def refused(source, split="train"):
    with pytest.raises(UserError) as error:
        source.open(split)
    assert not isinstance(error.value, BrokenExample)
    return str(error.value)


def test_what_is_missing_in_vocs_folders_is_named(voc, tmp_path):
    source = VOCSegmentation(str(voc))
    assert "did you mean 'train'" in refused(source, "trian") and "it has train, val" in refused(source, "test")
    (voc / "SegmentationClass/002.png").unlink()
    (voc / "SegmentationClass/001.png").unlink()
    assert "2 images of" in refused(source) and "have no mask in" in refused(source) and "002, 001" in refused(source)
    (voc / "JPEGImages/004.jpg").unlink()
    assert "1 names of" in refused(source) and refused(source).endswith("JPEGImages: 004")
    assert len(source.open("val")) == 2
    (voc / "ImageSets/Segmentation/val.txt").write_text("003\n003\n")
    assert "has names twice: 003" in refused(source, "val")
    (voc / "ImageSets/Segmentation/val.txt").write_text("\n")
    assert "has no name" in refused(source, "val")
    assert "JPEGImages; expected are" in refused(VOCSegmentation(str(tmp_path / "nowhere")))


def test_what_does_not_pair_is_named(pairs, tmp_path):
    root = tmp_path / "pairs/train"
    (root / "masks/2_class.png").rename(root / "masks/22_class.png")
    assert "1 images of" in refused(pairs) and refused(pairs).endswith("masks: 2")
    (root / "images/2.png").unlink()
    assert "1 masks of" in refused(pairs) and refused(pairs).endswith("images: 22_class")
    put(root / "masks/1_class.bmp", Image.fromarray(MASK))
    assert "two images of one name, 1_class.bmp and 1_class.png" in refused(pairs)
    (root / "masks/note.txt").write_text("")
    (root / "masks/1_class.bmp").unlink()
    assert "(note.txt)" in refused(pairs)
    assert "there is no folder" in refused(pairs, "val")
    assert "for {split} there is test, train" in refused(pairs, "val")


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"images": "a/{split}"}, "in both or in neither"),
        ({"masks": "a"}, "mask_suffix"),
        ({"channels": 2}, "channels"),
        ({"values": (0,)}, "values has 1 numbers for 3 classes"),
    ],
)
def test_fields_that_contradict_each_other(fields, text):
    with pytest.raises(UserError, match=text):
        PairedFolders(**({"images": "a", "masks": "b", "classes": NAMES} | fields))


def test_damaged_masks_are_listed_by_the_check(voc):
    put(voc / "SegmentationClass/000.png", palette(MASK + np.uint8(1)))
    put(voc / "SegmentationClass/002.png", palette(MASK[:2]))
    (voc / "SegmentationClass/001.png").write_bytes(PNG[:300])
    fields = with_image((3, 4, 3), {"mask": Field((3, 4), "uint8", 255)})
    broken = check(VOCSegmentation(str(voc)).open("train"), (), fields)
    assert [error.index for error in broken] == [1, 2, 3]
    assert "JPEGImages/000.jpg: the mask has the value 3 (first in row 0, column 2)" in str(broken[0])
    assert "JPEGImages/002.jpg: the mask has 2 x 4 (height x width) pixels, the image 3 x 4" in str(broken[1])
    assert "SegmentationClass/001.png: " in str(broken[2])


FILE = """import jaxcnn as jc

def experiment():
    data = jc.Data((6, 6, 3), SOURCE, "train", (), ("val",), (jc.PadTo(6), jc.HorizontalFlip()), (jc.PadTo(6),))
    return jc.Experiment(jc.create_model("fcn32s_vgg16", classes=3), data, task=jc.Segmentation())
"""


def test_data_check_lists_masks_that_cannot_be_used_and_classes_without_a_pixel(voc, tmp_path, capsys):
    put(voc / "SegmentationClass/000.png", palette(MASK[:2]))
    put(voc / "SegmentationClass/003.png", palette(np.where(MASK == 2, 255, MASK).astype(np.uint8)))
    put(voc / "SegmentationClass/005.png", palette(MASK // 2 * 0))
    (tmp_path / "scenes.py").write_text(FILE.replace("SOURCE", f"jc.VOCSegmentation({str(voc)!r}, {NAMES})"))
    with pytest.raises(UserError, match="1 broken images"):
        check_command([str(tmp_path / "scenes.py")])
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "tiny train: 4 images, 1 broken" and "000.jpg: the mask has 2 x 4" in lines[1]
    assert lines[2:] == ["tiny val: 2 images, 0 broken", "no pixel of house"]


def test_images_of_several_sizes_share_a_batch_at_their_own(voc):
    put(voc / "JPEGImages/003.jpg", image_file(3, (5, 2)))
    put(voc / "SegmentationClass/003.png", palette(np.ones((5, 2), np.uint8)))
    fields = with_image((6, 6, 3), {"mask": Field((6, 6), "uint8", 255)})
    batch = EvaluationBatches(VOCSegmentation(str(voc)).open("val"), (PadTo(6),), fields, 4)[0]
    assert (batch["mask"][0, :5, :2] == 1).all() and (batch["mask"][0] == 255).sum() == 36 - 10
    np.testing.assert_array_equal(batch["mask"][1, :3, :4], np.roll(MASK, 5, 1))
    assert (batch["mask"][2:] == 255).all() and batch["valid"].tolist() == [True, True, False, False]


def test_camvid():
    if not CAMVID.is_dir():
        pytest.skip(f"CamVid is not beside TFDS_DATA_DIR: there is no folder {CAMVID}")
    source = VOCSegmentation(str(CAMVID))
    assert [len(source.open(split)) for split in ("train", "val", "test")] == [367, 101, 233]
    fields = with_image((360, 480, 3), {"mask": Field((360, 480), "uint8", 255)})
    part = open_split(source, "val[:10%]")
    assert part.classes[0] == "sky" and len(part.classes) == 11 and check(part, (), fields) == []
    present = np.unique([np.unique(part[i]["mask"])[-1] for i in range(3)])
    assert present.tolist() == [255]
    top = np.concatenate([part[i]["mask"][:60].ravel() for i in range(len(part))])
    assert np.bincount(top, minlength=256)[:11].argmax() in (0, 1, 5)  # sky, buildings or trees


# TFDS.


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A data_dir with "scenes", an image and two masks each, and "plain", whose mask names its classes."""
    import tensorflow_datasets as tfds

    masks = {"trimap": tfds.features.Image(shape=(None, None, 1)), "depth": tfds.features.Image(shape=(None, None, 1))}
    labeled = {"pixels": tfds.features.LabeledImage(labels=list(NAMES), shape=(None, None, 1))}

    class Builder(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            parts = masks if self.name == "scenes" else labeled
            features = {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(names=["a", "b"]), **parts}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for i in range(3):
                mask = encoded(Image.fromarray(np.roll(MASK, i, 1)))
                parts = {"trimap": mask, "depth": b""} if self.name == "scenes" else {"pixels": mask}
                yield i, {"image": encoded(image_file(i)), "label": i % 2, **parts}

    data_dir = tmp_path_factory.mktemp("tfds")
    for name in ("Scenes", "Plain"):
        made = type(name, (Builder,), {"name": name.lower()})
        made(data_dir=str(data_dir), file_format="array_record").download_and_prepare()
    return str(data_dir)


def test_a_mask_of_tfds_is_named_or_found(written):
    named = Tfds("scenes", mask="trimap", classes=NAMES).open("train", written)
    found = Tfds("plain", mask=True).open("train", written)
    for examples in (named, found):
        numbers = [round(examples[i]["image"].mean() / 10) for i in range(3)]
        assert sorted(numbers) == [0, 1, 2] and examples[0].keys() == {"image", "mask"}
        right(examples, numbers)
    shifted = Tfds("scenes", mask="trimap", classes=("tree", "house"), values=(1, 2), ignored=(0, 255))
    example, whole = shifted.open("train", written)[0], named[0]
    np.testing.assert_array_equal(example["mask"], np.array([255, 0, 1] + [255] * 253, np.uint8)[whole["mask"]])
    assert Tfds("scenes").open("train", written)[0].keys() == {"image", "label"}


def test_a_mask_of_tfds_that_cannot_be_is_named(written):
    def message(**fields):
        with pytest.raises(UserError) as error:
            Tfds("scenes", **fields).open("train", written)
        return str(error.value)

    assert "did you mean 'trimap'" in message(mask="trimp") and "features that fit: depth, trimap" in message(mask="x")
    assert "several: depth, trimap; name one" in message(mask=True)
    assert "does not name the classes" in message(mask="trimap")
    with pytest.raises(UserError, match="it has none"):
        Tfds("plain", image="pixels", mask=True).open("train", written)
    with pytest.raises(BrokenExample, match=r"scenes/train\[0\]: the mask is empty"):
        Tfds("scenes", mask="depth", classes=NAMES).open("train", written)[0]
