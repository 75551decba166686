"""Image folders: order, labels, every way to be laid out wrong, and damaged files."""

import io
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxcnn.data.examples import BrokenExample, Examples, Source, check
from jaxcnn.data.folder import Folder
from jaxcnn.errors import UserError


def save(path, level=100, kind=None, mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (6, 4), level if mode == "L" else (level,) * len(mode)).save(path, kind)


@pytest.fixture
def root(tmp_path):
    for split, files in {"train": ("b.png", "a.png", "C.JPG"), "test": ("x.png",)}.items():
        for label, name in enumerate(("cat", "Dog", "ant")):
            for k, file in enumerate(files):
                save(tmp_path / "pets" / split / name / file, 50 * label + 10 * k)
    return tmp_path / "pets"


def test_labels_and_order_are_sorted_by_code_point(root):
    examples = Folder(str(root)).open("train")
    assert isinstance(Folder(str(root)), Source) and isinstance(examples, Examples)
    assert (examples.name, examples.split, examples.classes) == ("pets", "train", ("Dog", "ant", "cat"))
    paths = [os.path.relpath(examples.where(i), root) for i in range(len(examples))]
    assert paths == [f"train/{c}/{f}" for c in ("Dog", "ant", "cat") for f in ("C.JPG", "a.png", "b.png")]
    assert [examples[i]["label"] for i in range(9)] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    levels = [int(examples[i]["image"].flat[0]) for i in (1, 2, 4, 7)]
    assert levels == [60, 50, 110, 10]
    assert examples[0]["image"].shape == (4, 6, 3)
    assert Folder(str(root), channels=1).open("test")[0]["image"].shape == (4, 6, 1)


def test_litter_hidden_files_and_files_beside_the_classes_are_ignored(root):
    before = Folder(str(root)).open("train")
    for name in ("cat/.hidden.png", "cat/Thumbs.db", "labels.txt", ".cache/x.png"):
        (root / "train" / name).parent.mkdir(exist_ok=True)
        (root / "train" / name).write_bytes(b"x")
    after = Folder(str(root)).open("train")
    assert len(after) == len(before) == 9 and after.version == before.version


def test_version_follows_the_list_of_files(root):
    before = Folder(str(root)).open("train").version
    (root / "train/cat/a.png").rename(root / "train/ant/z.png")
    assert Folder(str(root)).open("train").version != before


def test_pickles(root):
    examples = Folder(str(root)).open("train")
    copy = pickle.loads(pickle.dumps(examples))
    assert copy.where(8) == examples.where(8) and copy[8]["label"] == 2


def test_names_that_are_not_ascii_or_not_utf8(root):
    save(root / "train/cat/katze-ü.png", 7)
    raw = os.path.join(os.fsencode(root), b"train/cat/\xff.png")
    try:
        with open(raw, "wb") as file:
            file.write((root / "train/cat/a.png").read_bytes())
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    examples = pickle.loads(pickle.dumps(Folder(str(root)).open("train")))
    assert len(examples) == 11 and check(examples) == []


def jpeg(**options):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "JPEG", **options)
    return file.getvalue()


def test_damaged_files_are_named_and_disguised_ones_read(root):
    cat = root / "train/cat"
    save(cat / "0_png.JPEG", kind="PNG")
    save(cat / "1_cmyk.jpg", 0, mode="CMYK")
    save(cat / "2_grey.gif", mode="L")
    (cat / "3_half.jpg").write_bytes(jpeg()[:900])
    (cat / "4_empty.jpg").write_bytes(b"")
    (cat / "5_text.png").write_text("404 not found")
    (cat / "6_dangling.png").symlink_to(root / "nowhere.png")
    examples = Folder(str(root)).open("train")
    broken = check(examples, threads=2)
    assert [os.path.basename(b.where) for b in broken] == ["3_half.jpg", "4_empty.jpg", "5_text.png", "6_dangling.png"]
    causes = ["truncated", "empty", "not an image", "No such file"]
    for error, cause in zip(broken, causes, strict=True):
        assert cause in error.cause and error.where == examples.where(error.index) and error.where in str(error)
        copy = pickle.loads(pickle.dumps(error))  # as it comes from a worker process
        assert type(copy) is BrokenExample and copy.index == error.index and str(copy) == str(error)
    assert isinstance(broken[0], UserError)
    good = [examples[i] for i in range(len(examples)) if i not in {b.index for b in broken}]
    assert len(good) == 12 and all(e["image"].dtype == np.uint8 and e["image"].shape[2] == 3 for e in good)


def refused(path, split="train", channels=3):
    with pytest.raises(UserError) as error:
        Folder(str(path), channels).open(split)
    return str(error.value)


def test_wrong_layouts(root, tmp_path):
    assert "no folder" in refused(tmp_path / "nowhere") and "SPLIT/CLASS" in refused(tmp_path / "nowhere")
    assert "did you mean 'train'? it has test, train" in refused(root, "trian")
    assert "which have no class folders inside" in refused(root / "train")  # PATH is a split itself
    (tmp_path / "bare").mkdir()
    assert "no split folders" in refused(tmp_path / "bare")
    (tmp_path / "half/train").mkdir(parents=True)
    assert "no class folders" in refused(tmp_path / "half")
    with pytest.raises(UserError, match="channels"):
        Folder(str(root), channels=4)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("notes.txt", "notes.txt"),
        ("image", "not images by their extension"),
        ("a.heic", ".jpg"),
        ("more/a.png", "more"),
    ],
)
def test_strange_entries_in_a_class_folder_are_refused(root, name, message):
    (root / "train/cat" / name).parent.mkdir(exist_ok=True)
    (root / "train/cat" / name).write_bytes(b"x")
    assert message in refused(root) and str(root / "train/cat") in refused(root)


def test_empty_class_is_refused(root):
    for file in (root / "test/ant").iterdir():
        file.unlink()
    assert str(root / "test/ant") in refused(root, "test") and "no images" in refused(root, "test")
    assert len(Folder(str(root)).open("train")) == 9


def test_other_class_names_in_another_split_are_refused(root):
    (root / "test/cat").rename(root / "test/kat")
    message = refused(root, "test")
    assert "missing in test: cat" in message and "only in test: kat" in message
    (root / "train").rename(root / "training")  # with no train split, the split's own names count
    assert Folder(str(root)).open("test").classes == ("Dog", "ant", "kat")


def test_modules_import_without_the_data_libraries():
    code = (
        "import sys\n"
        "from jaxcnn.data import digits, examples, folder, images, synthetic, tfds, transforms\n"
        "print(sorted({'tensorflow', 'tensorflow_datasets', 'grain', 'cv2', 'PIL', 'sklearn'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
