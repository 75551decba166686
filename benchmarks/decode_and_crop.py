"""Photos like ImageNet's to crops of 224: Pillow, tf.data's fused decode and crop, and what a run does, packed and not.

python benchmarks/decode_and_crop.py --photos FOLDER [--rounds 9] [--tensorflow PYTHON]

FOLDER has photos of any size, in it or below. They are brought to 500 x 375 and to JPEGs (4:2:0) of the quality at
which their mean size is the closest to 107 kB, ImageNet's; large ones are the same at 2000 x 1500, quality 85. All ways
take the same crops, RandomResizedCrop's. Figures are the processor time of one thread, and medians over rounds, each of
which takes all ways in turn, since others may use the machine. PYTHON is an interpreter with TensorFlow, of an
environment of its own: it measures its share of each round in a process of its own, with one thread.
"""

import argparse
import contextlib
import io
import json
import os
import pathlib
import pickle
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from jaxcnn.data.encoded import encoded
from jaxcnn.data.fields import LABEL, with_image
from jaxcnn.data.folder import EXTENSIONS, Folder
from jaxcnn.data.geometry import Geometry, move_image
from jaxcnn.data.images import decode
from jaxcnn.data.pack import pack
from jaxcnn.data.pipeline import TrainBatches
from jaxcnn.data.tfds import Tfds
from jaxcnn.data.transforms import HorizontalFlip, RandomResizedCrop

WANTED, SIZE, LARGE = 107e3, (500, 375), (2000, 1500)
TENSORFLOW = """
import os, pickle, sys, time
os.environ |= {"CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
import tensorflow as tf
tf.config.threading.set_inter_op_parallelism_threads(1)
tf.config.threading.set_intra_op_parallelism_threads(1)
files, windows = pickle.load(open(sys.argv[1], "rb"))
options = tf.data.Options()
options.threading.private_threadpool_size = options.threading.max_intra_op_parallelism = 1
data = tf.data.Dataset.from_tensor_slices((files, tf.constant(windows))).with_options(options)
crop = lambda file, window: tf.image.decode_and_crop_jpeg(file, window, channels=3)
resize = lambda image, **how: tf.cast(tf.round(tf.image.resize(image, (224, 224), **how)), tf.uint8)
ways = {
    "decode": lambda file, window: tf.shape(crop(file, window)),
    "plain": lambda file, window: resize(crop(file, window)),
    "antialias": lambda file, window: resize(crop(file, window), antialias=True),
}
ready = {name: data.map(way).batch(len(files)) for name, way in ways.items()}
print(tf.__version__, flush=True)
for name in sys.stdin:
    start = time.process_time()
    for batch in ready[name.strip()]:
        batch.numpy()
    print((time.process_time() - start) / len(files), flush=True)
"""

Way = Callable[[], float]


def jpeg_of(image: Image.Image, quality: int) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality, subsampling="4:2:0")
    return file.getvalue()


def photos_of(folder: pathlib.Path, count: int) -> tuple[list[bytes], list[bytes], int]:
    """The photos as JPEGs, the large ones, and the quality of the first."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS)
    if not paths:
        raise SystemExit(f"{folder} has no photos")
    images = []
    for path in paths[:: max(1, len(paths) // count)][:count]:
        with Image.open(path) as image:
            images.append(image.convert("RGB"))
    small = [image.resize(SIZE, Image.Resampling.BICUBIC) for image in images]
    each = {quality: [jpeg_of(image, quality) for image in small] for quality in range(80, 101)}
    quality = min(each, key=lambda quality: abs(np.mean([len(file) for file in each[quality]]) - WANTED))
    large = [jpeg_of(image.resize(LARGE, Image.Resampling.BICUBIC), 85) for image in images[:8]]
    return each[quality], large, quality


def crops(files: list[bytes], size: tuple[int, int], **options) -> list[Geometry]:
    transform, rng = RandomResizedCrop(224, **options), np.random.default_rng(0)
    return [transform.draw((*size[::-1], 3), rng) for _ in files]


def by_pillow(file: bytes, crop: Geometry) -> np.ndarray:
    top, left, height, width = crop.window
    with Image.open(io.BytesIO(file)) as image:
        cropped = image.convert("RGB").crop((left, top, left + width, top + height))
        return np.asarray(cropped.resize((224, 224), Image.Resampling.BILINEAR))


def whole_by_pillow(file: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(file)) as image:
        return np.asarray(image.convert("RGB"))


def here(file: bytes, crop: Geometry) -> np.ndarray:
    return move_image(encoded(file, 3), crop)


def timed(call: Callable[[], object], images: int) -> Way:
    """Seconds per image of this thread."""

    def way() -> float:
        start = time.thread_time()
        call()
        return (time.thread_time() - start) / images

    return way


def over(call: Callable, files: list[bytes], *others: list) -> Way:
    return timed(lambda: [call(*each) for each in zip(files, *others, strict=True)], len(files))


@contextlib.contextmanager
def tensorflow(python: str | None, files: list[bytes], windows: list) -> Iterator[dict[str, Way]]:
    """The ways of tf.data; none without an interpreter."""
    if python is None:
        yield {}
        return
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "photos"
        path.write_bytes(pickle.dumps((files, windows)))
        alone = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        command = [python, "-c", TENSORFLOW, str(path)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(command, text=True, env=alone, **pipes) as process:
            version = process.stdout.readline().strip()

            def ask(name: str) -> float:
                process.stdin.write(f"{name}\n")
                process.stdin.flush()
                return float(process.stdout.readline())

            told = f"tf.data {version}, fused decode and crop"
            yield {
                f"decode alone: {told}": lambda: ask("decode"),
                f"to 224: {told}, antialias": lambda: ask("antialias"),
                f"to 224: {told}, not antialiased": lambda: ask("plain"),
            }
            process.stdin.close()


def batches(folder: str, out: str, name: str, antialias: bool, size: int) -> dict[str, TrainBatches]:
    fields, augment = with_image((224, 224, 3), LABEL), (RandomResizedCrop(224, antialias=antialias), HorizontalFlip())
    sources = {"unpacked": Folder(folder).open("train"), "packed": Tfds(name).open("train", out)}
    return {kind: TrainBatches(examples, augment, fields, size, seed=0) for kind, examples in sources.items()}


def difference(files: list[bytes], given: list[Geometry], exact: list[Geometry]) -> str:
    """Of the crops, in levels of 255, from those of Pillow."""
    off = [np.abs(here(f, g).astype(int) - by_pillow(f, e)) for f, g, e in zip(files, given, exact, strict=True)]
    return f"mean {np.mean([each.mean() for each in off]):.2f}, largest {max(each.max() for each in off)}"


def measured(files: list[bytes], large: list[bytes], rounds: int, python: str | None) -> dict[str, object]:
    exact, plain = crops(files, SIZE), crops(files, SIZE, antialias=False)
    wide, shrunk = crops(large, LARGE), crops(large, LARGE, shrink_on_load=True)
    fastest = crops(large, LARGE, shrink_on_load=True, antialias=False)
    as_array = [np.frombuffer(file, np.uint8) for file in files]
    with tempfile.TemporaryDirectory() as folder:
        unpacked, out = f"{folder}/photos", f"{folder}/out"
        for number, file in enumerate(files):
            path = pathlib.Path(unpacked) / "ab"[number % 2] / f"{number:04}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file)
        packed = pack(Folder(unpacked), out)
        step = iter(range(10**9))
        reading = {
            f"from files: {kind}{'' if antialias else ', not antialiased'}": timed(
                lambda each=each: each[next(step)], len(files)
            )
            for antialias in (True, False)
            for kind, each in batches(unpacked, out, packed.name, antialias, len(files)).items()
        }
        with tensorflow(python, files, [list(crop.window) for crop in exact]) as others:
            ways = {
                "decode alone: Pillow, all": over(whole_by_pillow, files),
                "decode alone: OpenCV, all": over(lambda f: cv2.imdecode(f, cv2.IMREAD_COLOR_RGB), as_array),
                "decode alone: the entropy-coded data and little else, OpenCV at 1/8 in grey": over(
                    lambda f: cv2.imdecode(f, cv2.IMREAD_REDUCED_GRAYSCALE_8), as_array
                ),
                "decode alone: simplejpeg, all": over(simplejpeg.decode_jpeg, files),
                "decode alone: here, all": over(lambda file: decode(file, 3), files),
                "decode alone: here, what the crop needs": over(
                    lambda f, c: encoded(f, 3).window(c.window), files, exact
                ),
                "to 224: Pillow, all of it": over(by_pillow, files, exact),
                "to 224: here": over(here, files, exact),
                "to 224: here, not antialiased": over(here, files, plain),
                "large to 224: Pillow, all of it": over(by_pillow, large, wide),
                "large to 224: here": over(here, large, wide),
                "large to 224: here, shrink_on_load": over(here, large, shrunk),
                "large to 224: here, shrink_on_load, not antialiased": over(here, large, fastest),
                **reading,
                **others,
            }
            times: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(rounds + 1):
                for name, way in ways.items():
                    times[name].append(way())
        rates = {name: 1 / statistics.median(each[1:]) for name, each in times.items()}
        sizes = {
            "unpacked": np.mean([len(file) for file in files]),
            "packed": packed.info["bytes"]["train"] / len(files),
        }
    return {
        "images per second and core": rates,
        "ratios": ratios(rates),
        "difference from Pillow's pixels, of 255 levels": {
            "here": difference(files, exact, exact),
            "here, not antialiased": difference(files, plain, exact),
            "large, shrink_on_load": difference(large, shrunk, wide),
            "large, shrink_on_load, not antialiased": difference(large, fastest, wide),
        },
        "mean bytes": {name: round(float(size)) for name, size in sizes.items()},
        "mean bytes, large": round(float(np.mean([len(file) for file in large]))),
    }


def ratios(rates: dict[str, float]) -> dict[str, float]:
    def rate(start: str, end: str = "") -> float | None:
        return next((each for name, each in rates.items() if name.startswith(start) and name.endswith(end)), None)

    pairs = {
        "decode, what the crop needs, over Pillow's whole": (
            rate("decode alone: here, what"),
            rate("decode alone: Pillow"),
        ),
        "decode, what the crop needs, over tf.data's fused": (
            rate("decode alone: here, what"),
            rate("decode alone: tf"),
        ),
        "to 224 over Pillow": (rate("to 224: here"), rate("to 224: Pillow")),
        "to 224 over tf.data, both antialiased": (rate("to 224: here"), rate("to 224: tf", ", antialias")),
        "to 224 over tf.data, neither antialiased": (
            rate("to 224: here, not"),
            rate("to 224: tf", "not antialiased"),
        ),
        "large, shrink_on_load, over Pillow": (rate("large to 224: here, shrink"), rate("large to 224: Pillow")),
        "packed over unpacked": (rate("from files: packed"), rate("from files: unpacked")),
        "packed over unpacked, neither antialiased": (rate("from files: packed,"), rate("from files: unpacked,")),
    }
    return {name: one / other for name, (one, other) in pairs.items() if one is not None and other is not None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=pathlib.Path, required=True)
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--tensorflow", metavar="PYTHON")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    files, large, quality = photos_of(arguments.photos, arguments.count)
    what = {
        "photos": len(files),
        "size": list(SIZE),
        "quality": quality,
        "rounds": arguments.rounds,
        "cpus": os.cpu_count(),
        "load at the start": os.getloadavg()[0],
    }
    print(json.dumps(what | measured(files, large, arguments.rounds, arguments.tensorflow), indent=2))


if __name__ == "__main__":
    main()
