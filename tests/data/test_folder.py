"""Image folders: order, labels, every way to be laid out wrong, and damaged files."""

import io
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxcnn import config
from jaxcnn.data.examples import BrokenExample, Examples, Source
from jaxcnn.data.folder import Folder
from jaxcnn.data.splits import classes_without_images
from jaxcnn.data.survey import check
from jaxcnn.errors import UserError
from jaxcnn.experiment import Data


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


def test_version_follows_the_files_and_not_their_place(root, tmp_path):
    before = Folder(str(root)).open("train").version
    shutil.copytree(root, tmp_path / "elsewhere")
    assert Folder(str(tmp_path / "elsewhere")).open("train").version == before
    with (root / "train/cat/a.png").open("ab") as file:
        file.write(b"x")
    longer = Folder(str(root)).open("train").version
    (root / "train/cat/a.png").rename(root / "train/ant/z.png")
    assert len({before, longer, Folder(str(root)).open("train").version}) == 3


def test_a_relative_path_is_made_absolute_at_once(root, monkeypatch):
    monkeypatch.chdir(root.parent)
    source = Folder("pets")
    assert source.path == str(root) == config.encode(source)["path"]
    data = Data((6, 6, 3), source=source, data_dir="sets")
    assert config.encode(data)["data_dir"] == str(root.parent / "sets")
    monkeypatch.chdir("/")
    assert len(source.open("train")) == 9


def test_a_folder_of_class_folders_is_one_split(tmp_path):
    for label, name in enumerate(("car", "plane", "train")):  # a class may have the name of a split
        for i in range(10):
            save(tmp_path / "toys" / name / f"{i}.png", 20 * label + i)
    toys = Folder(str(tmp_path / "toys"))
    whole = toys.open("train")
    assert (whole.split, whole.classes, len(whole)) == ("train", ("car", "plane", "train"), 30)
    assert whole.where(0) == str(tmp_path / "toys/car/0.png")
    train, held_out, test = (toys.open(f"train[{part}]") for part in ("70%:", ":50%", "50%:70%"))
    assert [np.bincount(part.labels).tolist() for part in (train, held_out, test)] == [[3] * 3, [5] * 3, [2] * 3]
    assert len({part.where(i) for part in (train, held_out, test) for i in range(len(part))}) == 30
    assert {os.path.basename(held_out.where(i)) for i in range(15)} == {f"{i}.png" for i in range(5)}
    assert train.version == whole.version and train.name == "toys"


def test_a_missing_test_split_says_what_to_write(root, tmp_path):
    save(tmp_path / "flat/cat/a.png")
    shutil.rmtree(root / "test")
    for path in (root, tmp_path / "flat"):
        message = refused(path, "test")
        assert "no split 'test'" in message and "test_splits=()" in message
        assert (
            'train_split="train[:70%]", evaluation_splits=("train[70%:85%]",), test_splits=("train[85%:]",)' in message
        )
    save(root / "tests/cat/a.png")
    assert "did you mean 'tests'" in refused(root, "test")


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
    (tmp_path / "bare").mkdir()
    assert "no split folders" in refused(tmp_path / "bare")
    for split in ("train", "test"):  # images and no classes: never two classes called train and test
        save(tmp_path / "unsorted" / split / "a.png")
    assert "which have no class folders inside" in refused(tmp_path / "unsorted")
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


def test_a_class_without_images_is_refused_in_training_only(root):
    for file in (root / "test/ant").iterdir():
        file.unlink()
    for _ in range(2):  # an empty folder, and none
        test = Folder(str(root)).open("test")
        assert len(test) == 2 and test.classes == ("Dog", "ant", "cat") and [e["label"] for e in test] == [0, 2]
        assert classes_without_images(test) == ["ant"]
        if (root / "test/ant").exists():
            (root / "test/ant").rmdir()
    for file in (root / "train/ant").iterdir():
        file.unlink()
    assert str(root / "train/ant") in refused(root) and "no images" in refused(root)


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
