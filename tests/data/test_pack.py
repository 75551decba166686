"""Packed sets: what is written, that Tfds reads it, and that nothing half written is taken for a set."""

import io
import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from jaxcnn.__main__ import main
from jaxcnn.data import pack as packing
from jaxcnn.data.examples import BrokenExample
from jaxcnn.data.folder import Folder
from jaxcnn.data.images import decode
from jaxcnn.data.pack import pack
from jaxcnn.data.tfds import Tfds
from jaxcnn.errors import UserError
from tests.data.test_encoded import by_pillow, jpeg_of, photo

SIZES = {"train": {"cat": [(60, 90), (20, 31)], "dog": [(120, 64)]}, "test": {"cat": [(33, 99)], "dog": [(64, 64)]}}


@pytest.fixture
def photos(tmp_path):
    for split, classes in SIZES.items():
        for name, sizes in classes.items():
            (tmp_path / "photos" / split / name).mkdir(parents=True)
            for size in sizes:
                (tmp_path / "photos" / split / name / f"{size[0]}.jpg").write_bytes(jpeg_of(photo(*size)))
    photo(24, 40).save(tmp_path / "photos" / "train" / "dog" / "24.png")
    return Folder(str(tmp_path / "photos"))


def read(packed, out, split="train"):
    """{label: {size: image}}, for TFDS shuffles what it writes."""
    examples = Tfds(packed.name).open(split, str(out))
    found: dict[int, dict] = {label: {} for label in range(len(examples.classes))}
    for i in range(len(examples)):
        example = examples[i]
        found[example["label"]][example["image"].shape[:2]] = example["image"]
    return examples, found


def test_a_packed_folder_is_a_set_with_smaller_images(photos, tmp_path):
    packed = pack(photos, str(tmp_path / "out"), side=32, quality=95)
    assert packed.name == "photos_32px_q95" and packed.made
    examples, found = read(packed, tmp_path / "out")
    assert examples.classes == ("cat", "dog")
    assert {label: sorted(images) for label, images in found.items()} == {
        0: [(20, 31), (32, 48)],
        1: [(24, 40), (60, 32)],
    }
    _, tested = read(packed, tmp_path / "out", "test")
    assert {label: sorted(images) for label, images in tested.items()} == {0: [(32, 96)], 1: [(32, 32)]}
    with Image.open(tmp_path / "photos/train/cat/60.jpg") as original:
        smaller = original.resize((48, 32), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    smaller.save(file, "JPEG", quality=95, subsampling="4:2:0")
    np.testing.assert_array_equal(found[0][32, 48], by_pillow(file.getvalue()))


def test_a_small_jpeg_is_copied(photos, tmp_path):
    packed = pack(photos, str(tmp_path / "out"), side=32, quality=5)
    examples, found = read(packed, tmp_path / "out")
    written = (tmp_path / "photos/train/cat/20.jpg").read_bytes()
    np.testing.assert_array_equal(found[0][20, 31], decode(written, 3))
    small = np.abs(found[1][24, 40].astype(int) - np.asarray(photo(24, 40)))
    assert small.mean() > 3  # the PNG, at quality 5
    assert written in [examples.encoded(i)["image"].data for i in range(len(examples))]


def test_what_was_done_is_in_its_info(photos, tmp_path):
    packed = pack(photos, str(tmp_path / "out"), side=32)
    stored = json.loads((pathlib.Path(packed.folder) / "metadata.json").read_text())
    assert stored == packed.info
    assert stored["images"] == {"train": 4, "test": 2} and stored["left_out"] == {"train": 0, "test": 0}
    assert (stored["source"], stored["side"], stored["quality"]) == ("photos", 32, 90)
    assert stored["source_version"] == "+".join(photos.open(split).version for split in ("test", "train"))


def test_the_same_again_is_there_already_and_another_is_refused(photos, tmp_path):
    out = str(tmp_path / "out")
    first = pack(photos, out, side=32, splits=["train"])
    assert pack(photos, out, side=32, splits=["train"]) == packing.Packed(first.name, first.folder, False, first.info)
    with pytest.raises(UserError, match=r"other quality; .*--name"):
        pack(photos, out, side=32, splits=["train"], quality=80, name=first.name)
    with pytest.raises(UserError, match="splits; give"):
        pack(photos, out, side=32, splits=["test", "train"], name=first.name)


def test_what_was_interrupted_is_no_set_and_is_cleared_away(photos, tmp_path, monkeypatch):
    out = tmp_path / "out"
    real, images = packing.packed_image, []

    def interrupted(image, *options):
        images.append(image)
        if len(images) == 3:
            raise KeyboardInterrupt
        return real(image, *options)

    with monkeypatch.context() as patched:
        patched.setattr(packing, "packed_image", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pack(photos, str(out), side=32)
    (out / "photos_32px_q90" / "incomplete.ABC_1.0.0").mkdir(parents=True, exist_ok=True)  # of a kill -9
    with pytest.raises(UserError, match="not prepared"):
        Tfds("photos_32px_q90").open("train", str(out))
    pack(photos, str(out), side=32)
    assert [path.name for path in (out / "photos_32px_q90").iterdir()] == ["1.0.0"]
    assert {path.name for path in out.iterdir()} == {"photos_32px_q90", ".photos_32px_q90.lock"}


def test_broken_images_stop_it_or_are_left_out_and_counted(photos, tmp_path):
    path = tmp_path / "photos/train/cat/60.jpg"
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(BrokenExample, match=r"60\.jpg: .*truncated"):
        pack(photos, str(tmp_path / "out"), side=32)
    assert not list((tmp_path / "out" / "photos_32px_q90").glob("1*"))
    packed = pack(photos, str(tmp_path / "out"), side=32, tolerate_broken=1)
    assert packed.info["left_out"] == {"test": 0, "train": 1} and packed.info["images"]["train"] == 3
    assert len(read(packed, tmp_path / "out")[0]) == 3


@pytest.mark.parametrize(
    "options, message", [({"side": 4}, "side is 4"), ({"quality": 101}, "quality"), ({"name": "../x"}, "letters")]
)
def test_wrong_options_are_named(photos, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        pack(photos, str(tmp_path / "out"), **options)


@pytest.mark.parametrize("out", ["photos", "photos/train/packed", "link"])
def test_a_set_does_not_become_a_class_of_the_folder_that_is_packed(photos, tmp_path, out):
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    with pytest.raises(UserError, match="is in the folder that is packed, which would have a class more"):
        pack(photos, str(tmp_path / out), side=32)
    assert not (tmp_path / "photos/train/packed").exists() and len(photos.open("train")) == 4


def test_a_split_that_is_not_there(photos, tmp_path):
    with pytest.raises(UserError, match="no split 'tset'; did you mean 'test'"):
        pack(photos, str(tmp_path / "out"), splits=["tset"])


def test_grey_images_stay_grey(tmp_path):
    (tmp_path / "photos" / "a").mkdir(parents=True)
    photo(70, 50, 1).save(tmp_path / "photos" / "a" / "0.png")
    packed = pack(Folder(str(tmp_path / "photos"), channels=1), str(tmp_path / "out"), side=20)
    assert read(packed, tmp_path / "out")[1][0][28, 20].shape == (28, 20, 1)


def test_a_packed_set_can_be_packed_again(photos, tmp_path):
    first = pack(photos, str(tmp_path / "out"), side=32)
    again = pack(Tfds(first.name), str(tmp_path / "out"), side=16, data_dir=str(tmp_path / "out"), name="again")
    assert sorted(read(again, tmp_path / "out")[1][0]) == [(16, 24)]


def test_the_command(photos, tmp_path, capsys):
    arguments = ["data", "pack", photos.path, "--out", str(tmp_path / "out"), "--side", "32", "--splits", "train"]
    assert main(arguments) == 0
    told = capsys.readouterr().out
    assert "photos_32px_q90 is packed in" in told and "train: 4 images" in told and "TensorFlow" not in told
    assert 'jc.Tfds("photos_32px_q90")' in told and "Downloading" not in told
    assert main(arguments) == 0
    assert "is already packed in" in capsys.readouterr().out
    assert main(["data", "pack", str(tmp_path / "nothing"), "--out", str(tmp_path)]) == 1
    assert "there is no folder" in capsys.readouterr().err
