"""JPEGs of which only what a crop needs is decoded, against Pillow's pixels of the whole."""

import io

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from jaxcnn.data import jpeg
from jaxcnn.data.colors import ColorJitter
from jaxcnn.data.encoded import Encoded, encoded
from jaxcnn.data.examples import BrokenExample
from jaxcnn.data.few import Few
from jaxcnn.data.fields import LABEL, Field, with_image
from jaxcnn.data.folder import Folder
from jaxcnn.data.geometry import move_image
from jaxcnn.data.images import decode, resize
from jaxcnn.data.memory import load
from jaxcnn.data.pipeline import TrainBatches
from jaxcnn.data.preparation import transformed
from jaxcnn.data.splits import Sliced, open_split
from jaxcnn.data.transforms import CenterCrop, HorizontalFlip, Pad, RandomResizedCrop, Resize
from tests.data.mutants import mutants

FIELDS = with_image((16, 16, 3), LABEL)


def photo(height: int, width: int, channels: int = 3) -> Image.Image:
    """Smooth shapes and some noise in every channel."""
    rng = np.random.default_rng(height + width)
    coarse = Image.fromarray(rng.integers(0, 256, (8, 9, 3), dtype=np.uint8)).resize((width, height), 3)
    pixels = np.clip(np.asarray(coarse) + rng.normal(0, 8, (height, width, 3)), 0, 255).astype(np.uint8)
    return Image.fromarray(pixels if channels == 3 else pixels[..., 0])


def jpeg_of(image: Image.Image, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90, **options)
    return file.getvalue()


def by_pillow(data: bytes, channels: int = 3) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB" if channels == 3 else "L")).reshape(image.height, image.width, channels)


KINDS = {
    "420": {"subsampling": "4:2:0"},
    "422": {"subsampling": "4:2:2"},
    "444": {"subsampling": "4:4:4"},
    "restarts": {"subsampling": "4:2:0", "restart_marker_blocks": 3},
    "progressive": {"progressive": True},
}


@pytest.fixture
def decoded_rows(monkeypatch):
    """The heights of what simplejpeg has decoded."""
    rows, real = [], simplejpeg.decode_jpeg

    def decode_jpeg(*args, **options):
        pixels = real(*args, **options)
        rows.append(pixels.shape[0])
        return pixels

    monkeypatch.setattr(simplejpeg, "decode_jpeg", decode_jpeg)
    return rows


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(93, 61), (64, 80), (7, 120)])
def test_a_window_has_the_pixels_of_the_whole(kind, size):
    data = jpeg_of(photo(*size), **KINDS[kind])
    whole, lazy, rng = by_pillow(data), encoded(data, 3), np.random.default_rng(0)
    assert isinstance(lazy, Encoded) and lazy.shape == (*size, 3)
    np.testing.assert_array_equal(lazy.decoded(), whole)
    for bottom in range(1, size[0] + 1):
        top, left = int(rng.integers(bottom)), int(rng.integers(size[1]))
        window = (top, left, bottom - top, size[1] - left)
        np.testing.assert_array_equal(lazy.window(window), whole[top:bottom, left:], err_msg=str(window))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_window_of_a_grey_image(channels):
    data = jpeg_of(photo(50, 40, 1))
    found = encoded(data, channels)
    np.testing.assert_array_equal(found.window((3, 4, 20, 30)), by_pillow(data, channels)[3:23, 4:34])


def test_colors_as_grey_are_left_to_pillow():
    data = jpeg_of(photo(50, 40))
    np.testing.assert_array_equal(encoded(data, 1), by_pillow(data, 1))


def test_what_lies_below_a_window_is_not_decoded(decoded_rows):
    lazy = encoded(jpeg_of(photo(320, 40), subsampling="4:2:0"), 3)
    lazy.window((10, 0, 22, 40))
    lazy.window((0, 0, 300, 40))
    lazy.window((0, 0, 320, 40))
    assert decoded_rows == [48, 320, 320]


@pytest.mark.filterwarnings("ignore")
def test_odd_files_are_what_they_are_if_they_are_decoded_at_once():
    for mutant in mutants():
        answers = []
        for read in (decode, encoded):
            try:
                found = read(mutant.data, 3)
                answers.append(found.decoded() if isinstance(found, Encoded) else found)
            except ValueError as error:
                answers.append(str(error))
        assert np.array_equal(*answers), mutant.name


def test_a_turned_photo_is_decoded_and_turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = jpeg_of(photo(30, 50))
    found = encoded(jpeg_of(photo(30, 50), exif=exif), 3)
    np.testing.assert_array_equal(found, np.rot90(by_pillow(upright), -1))


@pytest.fixture
def folder(tmp_path):
    """Two classes of photos of several sizes, one of them a PNG."""
    for name, sizes in {"cats": [(40, 60), (200, 90), (64, 64)], "dogs": [(90, 33), (35, 120)]}.items():
        (tmp_path / name).mkdir()
        for number, size in enumerate(sizes):
            (tmp_path / name / f"{number}.jpg").write_bytes(jpeg_of(photo(*size)))
    photo(50, 70).save(tmp_path / "dogs" / "9.png")
    return tmp_path


class Whole:
    """Examples that give decoded images alone."""

    def __init__(self, examples):
        self.name, self.split, self.classes = examples.name, examples.split, examples.classes
        self.version, self.where, self.examples = "1", examples.where, examples

    def __len__(self):
        return len(self.examples)

    def __getitem__(self, i):
        return self.examples[i]


@pytest.mark.parametrize(
    "transforms",
    [
        (RandomResizedCrop(16), HorizontalFlip()),
        (HorizontalFlip(), RandomResizedCrop(16)),
        (CenterCrop(16),),
        (Resize(20), CenterCrop(16)),
        (RandomResizedCrop((300, 16)), CenterCrop(16)),
        (Pad(3), CenterCrop(16)),
    ],
    ids=["crop", "flip first", "center", "resize", "enlarged", "padded"],
)
def test_batches_are_the_same_as_of_whole_images(folder, transforms):
    examples = Folder(str(folder)).open("train[:90%]")  # Sliced passes it on
    few = Few(Folder(str(folder)), each=2).open("train")
    for each in (examples, few):
        lazy, whole = (TrainBatches(e, transforms, FIELDS, 8, seed=5) for e in (each, Whole(each)))
        for step in range(3):
            for name, part in lazy[step].items():
                np.testing.assert_array_equal(part, whole[step][name])


@pytest.mark.parametrize(
    "source, split", [(Folder, "train"), (Folder, "train[:90%]"), (lambda path: Few(Folder(path), each=2), "train")]
)
def test_batches_decode_less_than_the_images(folder, decoded_rows, source, split):
    examples = open_split(source(str(folder)), split)
    crop = (RandomResizedCrop(16, scale=(0.1, 0.2)),)
    TrainBatches(examples, crop, FIELDS, 12, seed=1)[0]
    lazily = sum(decoded_rows)
    decoded_rows.clear()
    TrainBatches(Whole(examples), crop, FIELDS, 12, seed=1)[0]
    assert 0 < lazily < 0.9 * sum(decoded_rows)


@pytest.mark.parametrize("first", [RandomResizedCrop(16), ColorJitter(0.5), HorizontalFlip(0.0)])
def test_boxes_move_with_a_photo_that_is_not_decoded_yet(first):
    data = jpeg_of(photo(60, 80))
    parts = {"boxes": np.array([[5, 6, 70, 50], [0, 0, 9, 9]], np.float32), "classes": np.array([0, 1], np.int32)}
    lazy, whole = (
        transformed({"image": image} | parts, (first,), np.random.default_rng(3))
        for image in (encoded(data, 3), by_pillow(data))
    )
    assert lazy.keys() == whole.keys()
    for name, part in whole.items():
        np.testing.assert_array_equal(lazy[name], part)


class WithNumber(Whole):
    """As WithProposals: what the examples are is handed on, and each has one part more."""

    def __getattr__(self, name):
        return getattr(self.examples, name)

    def __getitem__(self, i):
        return self.examples[i] | {"number": i}


@pytest.mark.parametrize("few", [False, True])
def test_examples_that_add_a_part_to_those_of_others_keep_it(folder, few):
    examples = WithNumber(Folder(str(folder)).open("train"))
    if few:
        examples = Sliced("train", [(examples, np.arange(2, 6))])
    batch = TrainBatches(examples, (CenterCrop(16),), FIELDS | {"number": Field((), "int32")}, 4, seed=0)[0]
    np.testing.assert_array_equal(batch["number"], batch["index"] + 2 * few)


def test_a_cut_file_is_a_broken_example_whatever_is_needed_of_it(folder):
    path = folder / "cats" / "1.jpg"
    path.write_bytes(path.read_bytes()[:-300])
    examples = open_split(Folder(str(folder)), "train")
    batches = TrainBatches(examples, (RandomResizedCrop(16, scale=(0.01, 0.02)),), FIELDS, 6, seed=0)
    with pytest.raises(BrokenExample, match=r"1\.jpg: .*no end marker"):
        batches[0]


def test_a_file_that_shows_itself_broken_when_it_is_decoded_is_a_broken_example(folder):
    path = folder / "cats" / "1.jpg"
    data = path.read_bytes()
    tables = data.index(b"\xff\xdb")
    path.write_bytes(data[:tables] + b"\xff\xfe" + data[tables + 2 :])  # a quantization table becomes a comment
    batches = TrainBatches(open_split(Folder(str(folder)), "train"), (RandomResizedCrop(16),), FIELDS, 6, seed=0)
    with pytest.raises(BrokenExample, match=r"1\.jpg"):
        batches[0]


def test_shrinking_on_load_is_near_to_the_exact_crop_and_only_if_enough_is_left(decoded_rows):
    data = jpeg_of(photo(640, 480))
    lazy, whole = encoded(data, 3), by_pillow(data)
    for window, rows in {
        (17, 30, 600, 400): 80,
        (40, 8, 140, 200): 26,
        (600, 0, 40, 33): 320,
        (0, 0, 31, 480): 48,
    }.items():
        decoded_rows.clear()
        top, left, height, width = window
        exact = resize(whole[top : top + height, left : left + width], (16, 16), "bilinear").astype(int)
        off = np.abs(lazy.reduced(window, (16, 16), "bilinear") - exact)
        assert decoded_rows == [rows], window
        assert off.mean() < 3 and (off.any() or rows == 48), window


def test_a_crop_shrinks_on_load_if_it_is_asked_to(decoded_rows):
    lazy, rng = encoded(jpeg_of(photo(640, 480)), 3), np.random.default_rng
    for asked, rows in ((False, 640), (True, 80)):
        decoded_rows.clear()
        geometry = RandomResizedCrop(16, scale=(0.9, 0.9), ratio=(0.75, 0.75), shrink_on_load=asked).draw(
            lazy.shape, rng(0)
        )
        assert move_image(lazy, geometry).shape == (16, 16, 3)
        assert decoded_rows[0] >= rows - 64 * rows // 640 and decoded_rows[0] <= rows


def test_what_shrinks_on_load_is_not_kept_in_memory(tmp_path):
    (tmp_path / "cats").mkdir()
    (tmp_path / "cats" / "0.jpg").write_bytes(jpeg_of(photo(40, 40)))
    examples = open_split(Folder(str(tmp_path)), "train")
    for asked in (False, True):
        kept, rest = load(examples, (RandomResizedCrop(16, shrink_on_load=asked),), FIELDS, 2**20)
        assert (kept is examples) == asked and len(rest) == 1


def test_a_frame_is_read_off_the_header():
    frame = jpeg.frame_of(jpeg_of(photo(30, 50), subsampling="4:2:0"))
    assert frame is not None and frame[:4] == (30, 50, 3, 16) and frame.one_scan and not frame.described
    progressive = jpeg.frame_of(jpeg_of(photo(30, 50), progressive=True, exif=Image.Exif().tobytes() or b"Exif\0\0"))
    assert progressive is not None and not progressive.one_scan
    assert jpeg.frame_of(b"\xff\xd8\xff\xe0\x00") is None
