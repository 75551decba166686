"""TFDS sets: a small one that TFDS itself writes, with damaged images in it, and fashion_mnist where TFDS_DATA_DIR has
it.
"""

import contextlib
import io
import os
import pickle
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxcnn.data.examples import BrokenExample, Examples, Source
from jaxcnn.data.survey import check
from jaxcnn.data.tfds import Tfds, prepare
from jaxcnn.data.tfds_labels import LabeledRecords
from jaxcnn.errors import UserError

ROOT = Path(__file__).parents[2]
NOISE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def encode(image, kind):
    file = io.BytesIO()
    image.save(file, kind, quality=95)
    return file.getvalue()


JPEG = encode(Image.fromarray(NOISE), "JPEG")
IMAGES = {  # name -> bytes, label; the examples carry their name
    "jpeg": (JPEG, 0),
    "png": (encode(Image.fromarray(NOISE), "PNG"), 1),
    "cmyk": (encode(Image.new("CMYK", (30, 20), (0, 200, 40, 30)), "JPEG"), 1),
    "grey": (encode(Image.new("L", (30, 20), 77), "JPEG"), 0),
    "truncated": (JPEG[:900], 0),
    "empty": (b"", 1),
    "zeros": (bytes(300), 1),
    "unlabelled": (JPEG, -1),
}


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """A data_dir that holds "flowers" 1.0.0, prepared by TFDS without TensorFlow."""
    import tensorflow_datasets as tfds

    class Flowers(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(encoding_format="jpeg"),
                "label": tfds.features.ClassLabel(names=["rose", "daisy"]),
                "name": tfds.features.Text(),
                "mask": tfds.features.Image(shape=(None, None, 1)),
            }
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, manager):
            return {"train": self._generate_examples(), "test": self._generate_examples()}

        def _generate_examples(self):
            for name, (data, label) in IMAGES.items():
                yield name, {"image": data, "label": label, "name": name, "mask": b"never decoded"}

    data_dir = tmp_path_factory.mktemp("tfds")
    Flowers(data_dir=str(data_dir), file_format="array_record").download_and_prepare()
    return data_dir


@pytest.fixture
def data_dir(written, tmp_path):
    """A copy that a test may spoil."""
    return shutil.copytree(written, tmp_path / "data")


def stored_names(data_dir, split="train"):
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(data_dir / "flowers/1.0.0")
    skip = tfds.decode.SkipDecoding()
    return [r["name"].decode() for r in builder.as_data_source(split, decoders={"image": skip, "mask": skip})]


def refused(source, split, data_dir):
    with pytest.raises(UserError) as error:
        source.open(split, str(data_dir))
    return str(error.value)


def test_good_images_decode_and_broken_ones_are_named(written):
    examples = Tfds("flowers").open("train", str(written))
    assert isinstance(examples, Examples) and isinstance(Tfds("flowers"), Source)
    assert (examples.name, examples.version, examples.split) == ("flowers", "1.0.0", "train")
    assert examples.classes == ("rose", "daisy")
    names = stored_names(written)
    got = {name: examples[i] for i, name in enumerate(names) if name in ("jpeg", "png", "cmyk", "grey")}
    np.testing.assert_array_equal(got["png"]["image"], NOISE)
    assert got["jpeg"]["image"].shape == (40, 60, 3) and got["jpeg"]["image"].dtype == np.uint8
    assert np.abs(got["cmyk"]["image"] - [225, 48.5, 189.7]).max() < 8
    assert np.abs(got["grey"]["image"].astype(int) - 77).max() <= 1 and got["grey"]["image"].shape == (20, 30, 3)
    assert {name: e["label"] for name, e in got.items()} == {"jpeg": 0, "png": 1, "cmyk": 1, "grey": 0}
    broken = {names[error.index]: error for error in check(examples, threads=2)}
    assert broken.keys() == {"truncated", "empty", "zeros", "unlabelled"}
    causes = {
        "truncated": "truncated",
        "empty": "0 bytes",
        "zeros": "all 300 bytes are zero",
        "unlabelled": "label -1 is outside",
    }
    for name, cause in causes.items():
        assert cause in str(broken[name]) and f"flowers/train[{broken[name].index}]" in str(broken[name])


def test_examples_pickle_and_bound_their_index(written):
    examples = Tfds("flowers").open("test", str(written))
    copy = pickle.loads(pickle.dumps(examples))
    i = stored_names(written, "test").index("png")
    np.testing.assert_array_equal(copy[i]["image"], NOISE)
    assert len(copy) == len(IMAGES) and copy.where(3) == "flowers/test[3]"
    for i in (-1, len(IMAGES)):
        with pytest.raises(IndexError):
            examples[i]


def test_sub_splits(written):
    names = stored_names(written)
    half = Tfds("flowers").open("train[50%:]", str(written))
    assert len(half) == 4 and half.where(0) == "flowers/train[50%:][0]"
    bad = {names[4 + error.index] for error in check(half, threads=1)}
    assert bad == {"truncated", "empty", "zeros", "unlabelled"} & set(names[4:])
    assert len(Tfds("flowers").open("train[:3]+test", str(written))) == 11


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("trian", "no split 'trian'; did you mean 'train'? it has train, test"),
        ("validation[:10%]", "no split 'validation'"),
        ("train+tset", "did you mean 'test'"),
        ("train[:x%]", "'train[:90%]'"),
        ("train[8:]", "has no examples"),
        ("train[90:]", "8 examples"),
        ("", "no split ''"),
        ("test+test", "'test+test' has 8 images twice"),
        ("train[:5]+test+train[4:7]", "has 1 image twice"),
    ],
)
def test_wrong_splits(written, split, message):
    assert message in refused(Tfds("flowers"), split, written)


def test_unprepared_dataset_says_what_prepares_it(written, tmp_path):
    message = refused(Tfds("imagenet2012"), "train", written)
    assert message == (
        f"dataset 'imagenet2012' is not prepared under {written}; "
        f"run: jaxcnn data prepare imagenet2012 --data-dir {written}"
    )
    assert refused(Tfds("flower"), "train", written).endswith("did you mean 'flowers'?")
    assert "is not prepared" in refused(Tfds("flowers"), "train", tmp_path / "nowhere")
    assert "the folder that holds flowers/" in refused(Tfds("flowers"), "train", written / "flowers")
    assert "mounted" in refused(Tfds("flowers"), "train", "gs://bucket/tfds")
    for name in ("flowers:1.0.0", "flowers/1.0.0", "../flowers", ""):
        assert "version='" in refused(Tfds(name), "train", written)


def test_data_dir_comes_from_the_argument_then_from_the_environment(written, monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(written))
    assert len(Tfds("flowers").open("test")) == len(IMAGES)
    assert str(tmp_path) in refused(Tfds("flowers"), "test", tmp_path)
    monkeypatch.delenv("TFDS_DATA_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UserError, match=f"{tmp_path}/tensorflow_datasets"):
        Tfds("flowers").open("test")


def test_versions_and_configurations(data_dir):
    for version in ("9.0.0", "10.0.0", "11.0.0.incompleteXYZ", "incomplete.AB_12.0.0"):
        shutil.copytree(data_dir / "flowers/1.0.0", data_dir / "flowers" / version)
    (data_dir / "flowers/13.0.0").mkdir()  # nothing in it
    folder = data_dir / "flowers"
    for version in ("9.0.0", "10.0.0"):
        info = folder / version / "dataset_info.json"
        info.write_text(info.read_text().replace('"1.0.0"', f'"{version}"'))
    assert Tfds("flowers").open("test", str(data_dir)).version == "10.0.0"  # not "9.0.0", which is later as text
    assert Tfds("flowers", "1.0.0").open("test", str(data_dir)).version == "1.0.0"
    assert "1.0.0, 9.0.0, 10.0.0, not 2.0.0" in refused(Tfds("flowers", "2.0.0"), "test", data_dir)
    shutil.copytree(folder / "1.0.0", data_dir / "trees/small/1.0.0")
    assert "name one: trees/small" in refused(Tfds("trees"), "test", data_dir)
    assert len(Tfds("trees/small").open("test", str(data_dir))) == len(IMAGES)
    assert "did you mean 'trees/small'" in refused(Tfds("trees/smal"), "test", data_dir)


def test_features_must_be_an_image_and_a_class(written):
    message = refused(Tfds("flowers", image="img"), "train", written)
    assert "image='img' is not a feature of it" in message and "all features: image, label, mask, name" in message
    assert "did you mean 'label'" in refused(Tfds("flowers", label="lable"), "train", written)
    assert "label='name' is of kind Text" in refused(Tfds("flowers", label="name"), "train", written)


def test_other_file_format_says_how_to_convert(data_dir):
    info = data_dir / "flowers/1.0.0/dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    message = refused(Tfds("flowers"), "train", data_dir)
    assert "stored as tfrecord" in message and "tfds convert_format" in message
    with pytest.raises(UserError, match="stored as tfrecord"):
        prepare("flowers", str(data_dir))


def test_damaged_folders(data_dir):
    folder = data_dir / "flowers/1.0.0"
    (shard,) = folder.glob("*train*")
    os.truncate(shard, shard.stat().st_size // 2)
    examples = Tfds("flowers").open("train", str(data_dir))
    with pytest.raises(BrokenExample, match=r"flowers/train\[0\]"):
        examples[0]
    shard.unlink()
    message = refused(Tfds("flowers"), "train", data_dir)
    assert "1 of 1 files" in message and str(shard) in message and "jaxcnn data prepare flowers" in message
    assert len(Tfds("flowers").open("test", str(data_dir))) == len(IMAGES)
    (folder / "dataset_info.json").write_text("{")
    assert "damaged" in refused(Tfds("flowers"), "test", data_dir)


# Preparing.

SLOW = """
import sys, time
from pathlib import Path
import tensorflow_datasets as tfds
from jaxcnn.data.tfds import prepare

class Snails(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")
    def _info(self):
        features = {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(num_classes=2)}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))
    def _split_generators(self, manager):
        return {"train": self._generate_examples()}
    def _generate_examples(self):
        with open(Path(sys.argv[1]) / "starts", "a") as file:
            file.write("start\\n")
        for i in range(4):
            time.sleep(float(sys.argv[2]))
            yield i, {"image": Path(sys.argv[1], "image.png").read_bytes(), "label": i % 2}

print(prepare("snails", sys.argv[1]))
"""


def start(folder, pause):
    (folder / "image.png").write_bytes(IMAGES["png"][0])
    command = [sys.executable, "-c", SLOW, str(folder), str(pause)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_at_once_one_prepares_and_one_waits(tmp_path):
    jobs = [start(tmp_path, 0.4) for _ in range(2)]
    done = [job.communicate(timeout=60) for job in jobs]
    lines = sorted(out.strip().splitlines()[-1] for out, _ in done)  # the lines before are TFDS's
    folder = tmp_path / "snails/1.0.0"
    assert lines == [f"snails 1.0.0 is already prepared in {folder}", f"snails 1.0.0 is prepared in {folder}"]
    assert (tmp_path / "starts").read_text() == "start\n"
    assert sum("another process prepares snails: waiting" in err for _, err in done) == 1
    examples = Tfds("snails").open("train", str(tmp_path))
    assert len(examples) == 4 and check(examples) == [] and examples.classes == ("0", "1")


def test_killed_preparation_leaves_no_half_dataset_and_no_lock(tmp_path):
    job = start(tmp_path, 60)
    with contextlib.closing(job.stdout), contextlib.closing(job.stderr):
        deadline = time.monotonic() + 60
        while not (tmp_path / "starts").exists() and time.monotonic() < deadline and job.poll() is None:
            time.sleep(0.05)
        job.kill()
        job.wait()
    assert (tmp_path / "starts").exists() and any((tmp_path / "snails").iterdir())
    assert "is not prepared" in refused(Tfds("snails"), "train", tmp_path)
    assert "is prepared in" in start(tmp_path, 0).communicate(timeout=60)[0]
    assert len(Tfds("snails").open("train", str(tmp_path))) == 4


def test_prepared_already_says_so_and_unknown_names_get_a_hint(written):
    assert prepare("flowers", str(written)) == f"flowers 1.0.0 is already prepared in {written}/flowers/1.0.0"
    with pytest.raises(UserError, match=r"no dataset 'fashion_mnits'; did you mean .*'fashion_mnist'"):
        prepare("fashion_mnits", str(written))


def test_preparation_that_needs_tensorflow_says_what_to_install(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    class Arrays(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict({"image": tfds.features.Image(shape=(40, 60, 3))})
            )

        def _split_generators(self, manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            yield 0, {"image": NOISE}

    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(UserError, match=r"needs TensorFlow.*pip install 'jaxcnn\[prepare\]'"):
        prepare("arrays", str(tmp_path))
    assert "is not prepared" in refused(Tfds("arrays"), "train", tmp_path)


# The real fashion_mnist 3.0.1.


@pytest.fixture
def fashion():
    if not os.environ.get("TFDS_DATA_DIR"):
        pytest.skip("TFDS_DATA_DIR not set: real-data test not run")
    return Tfds("fashion_mnist", "3.0.1")


def test_fashion_mnist_counts_and_pixels(fashion):
    import tensorflow_datasets as tfds

    examples = fashion.open("test")
    items = [examples[i] for i in range(len(examples))]
    assert np.bincount([item["label"] for item in items]).tolist() == [1000] * 10
    mean = np.mean([item["image"].mean() for item in items])
    assert abs(mean - 73.15) < 0.01  # the published test set
    assert examples.classes[0] == "T-shirt/top" and examples.classes[9] == "Ankle boot"
    builder = tfds.builder_from_directory(Path(os.environ["TFDS_DATA_DIR"]) / "fashion_mnist/3.0.1")
    theirs = builder.as_data_source("test")
    for i in range(0, 10000, 997):
        np.testing.assert_array_equal(items[i]["image"], theirs[i]["image"])
        assert items[i]["label"] == theirs[i]["label"]


def test_reading_imports_no_tensorflow(fashion):
    code = (
        "import sys, pickle; from jaxcnn.data.tfds import Tfds\n"
        "e = Tfds('fashion_mnist').open('train[:90%]'); pickle.loads(pickle.dumps(e))[53999]\n"
        "print(len(e), e.where(7), 'tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "54000 fashion_mnist/train[:90%][7] False\n"


def test_a_record_without_its_label_says_so():
    from tensorflow_datasets.proto import tf_example_pb2

    example = tf_example_pb2.Example()
    example.features.feature["image"].bytes_list.value.append(JPEG)
    with pytest.raises(ValueError, match="the record has no label"):
        LabeledRecords("image", "label", [example.SerializeToString()])[0]
    example.features.feature["label"].int64_list.value.append(-1)
    assert LabeledRecords("image", "label", [example.SerializeToString()])[0] == {"image": JPEG, "label": -1}
