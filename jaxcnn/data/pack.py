"""Pack: a set of photos made smaller, once, and written as array_record files that `Tfds` reads: training then reads
and decodes a fraction of the bytes.

TFDS writes them into a folder of another name, which it renames when all of it is there: what was interrupted is never
taken for a set, and is removed by the next start. TensorFlow is not needed.
"""

import contextlib
import dataclasses
import io
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from jaxcnn.data.encoded import Encoded
from jaxcnn.data.examples import BrokenExample, Examples, check_split, label_hash, stored
from jaxcnn.data.folder import Folder, subfolders
from jaxcnn.data.images import Method, resize, shorter_side
from jaxcnn.data.splits import open_split
from jaxcnn.data.tfds import Tfds, locked, prepared, read_builder, versions_in
from jaxcnn.errors import UserError

VERSION = "1.0.0"
METHOD: Method = "bicubic"
AHEAD = 64
"""Examples that are encoded at once, before they are written."""


@dataclasses.dataclass(frozen=True)
class Packed:
    """A packed set: `Tfds(name)` under the data_dir that it was packed into."""

    name: str
    folder: str
    made: bool
    """False if it was there already."""
    info: dict[str, Any]
    """What was done, as in metadata.json of its folder: the source, side, quality, method, and for each split how many
    images are in it and were left out, and how many bytes they take."""


def pack(
    source: Folder | Tfds,
    out: str,
    *,
    side: int = 256,
    quality: int = 90,
    splits: Sequence[str] = (),
    name: str | None = None,
    data_dir: str | None = None,
    tolerate_broken: int = 0,
    advance: Callable[[str, int, int], None] = lambda split, done, total: None,
) -> Packed:
    """Writes the images of a source and their labels to OUT/NAME/1.0.0.

    An image whose shorter side is longer than `side` is resized to it (bicubic, antialiased) and written as JPEG of
    this quality with colors of half the size (4:2:0). A JPEG that is no larger is copied as it is, since it would only
    lose; another small image is written as JPEG in its size.

    Args:
      source: images with labels.
      out: the folder of sets, a `data_dir`.
      side: in pixels.
      quality: of libjpeg, 1 to 100.
      splits: which; () for all.
      name: of the set; None: the source's, the side and the quality, such as "photos_256px_q90".
      data_dir: where a TFDS source lies.
      tolerate_broken: how many broken images are left out, over all splits, before one stops it.
      advance: told of each split how many images are done, and of how many.

    Raises:
      BrokenExample: an image is broken, or its label unknown, and no more may be.
      UserError: there is another set of this name; the source cannot be opened, or `out` is in its folder; the disk is
        full.
    """
    if side < 8:
        raise UserError(f"side is {side}; it is the shorter side of the images in pixels, at least 8")
    if not 1 <= quality <= 100:
        raise UserError(f"quality is {quality}; JPEG has 1 to 100, of which 90 is good")
    out = os.path.abspath(os.path.expanduser(out))
    if isinstance(source, Folder):
        photos, target = os.path.realpath(source.path), os.path.realpath(out)
        if target == photos or target.startswith(os.path.join(photos, "")):
            raise UserError(f"{out} is in the folder that is packed, which would have a class more; give another --out")
    known = splits_of(source, data_dir)
    for split in splits:
        check_split(split, known, f"{type(source).__name__}")
    opened = {split: open_split(source, split, data_dir) for split in splits or known}
    first = next(iter(opened.values()))
    if any(each.classes != first.classes for each in opened.values()):
        raise UserError(f"{first.name}: its splits have different classes; name those that belong together")
    name = name or f"{re.sub(r'[^0-9a-zA-Z]+', '_', first.name).strip('_').lower()}_{side}px_q{quality}"
    if not re.fullmatch(r"[a-zA-Z]\w*", name):
        raise UserError(f"the name of a set has letters, digits and _ and begins with a letter, unlike {name!r}")
    what = {
        "source": first.name,
        "source_version": "+".join(dict.fromkeys(each.version for each in opened.values())),
        "side": side,
        "quality": quality,
        "method": METHOD,
        "classes": len(first.classes),
        "label_hash": label_hash(first.classes),
    }
    try:
        os.makedirs(out, exist_ok=True)
        with locked(os.path.join(out, f".{name}.lock"), f"another process packs {name}: waiting for it"):
            if versions_in(os.path.join(out, name)):
                return _as_asked(name, out, what, list(opened))
            for entry in os.listdir(os.path.join(out, name)) if os.path.isdir(os.path.join(out, name)) else ():
                if "incomplete" in entry:
                    shutil.rmtree(os.path.join(out, name, entry))
            folder, info = _write(name, out, what, opened, side, quality, tolerate_broken, advance)
    except OSError as error:
        raise UserError(f"{name} cannot be packed into {out}: {error.strerror or error}") from error
    return Packed(name, folder, True, info)


def splits_of(source: Folder | Tfds, data_dir: str | None = None) -> list[str]:
    """The names of all splits of a source."""
    if isinstance(source, Tfds):
        folder = prepared(source.name, source.version, data_dir)
        return sorted(read_builder(source.name, folder).info.splits)
    names = subfolders(source.path) if os.path.isdir(source.path) else []
    return [name for name in names if subfolders(os.path.join(source.path, name))] or ["train"]


def packed_image(image: Encoded | np.ndarray, side: int, quality: int) -> bytes:
    """An image as the bytes of a JPEG, with its shorter side at most `side`."""
    from PIL import Image

    shape = image.shape
    small = min(shape[:2]) <= side
    if isinstance(image, Encoded):
        if small:
            return image.data
        image = image.decoded()
    pixels = np.ascontiguousarray(image if small else resize(image, shorter_side(shape, side), METHOD))
    file = io.BytesIO()
    # Not by simplejpeg, whose JPEGs are a few levels from those that libjpeg's quality stands for.
    Image.fromarray(pixels[..., 0] if shape[2] == 1 else pixels).save(
        file, "JPEG", quality=quality, subsampling="4:2:0"
    )
    return file.getvalue()


def _as_asked(name: str, out: str, what: dict[str, Any], splits: list[str]) -> Packed:
    """The set that is there already. UserError if it is another one."""
    folder = prepared(name, None, out)
    info = dict(read_builder(name, folder).info.metadata or {})
    other = [key for key, value in what.items() if info.get(key) != value]
    if sorted(info.get("images", {})) != sorted(splits):
        other.append("splits")
    if other:
        raise UserError(
            f"{folder} holds another set, of other {', '.join(other)}; give this one another --name, or remove that "
            "folder"
        )
    return Packed(name, folder, False, info)


def _write(
    name: str,
    out: str,
    what: dict[str, Any],
    opened: dict[str, Examples],
    side: int,
    quality: int,
    tolerate_broken: int,
    advance: Callable[[str, int, int], None],
) -> tuple[str, dict[str, Any]]:
    """Writes the set; returns its folder and what metadata.json says."""
    import tensorflow_datasets as tfds

    info = tfds.core.MetadataDict(what | {"images": {}, "left_out": {}, "bytes": {}})
    found: list[BrokenExample] = []
    first = next(iter(opened.values()))

    def encode(examples: Examples, i: int) -> tuple[bytes, int] | BrokenExample:
        try:
            example = stored(examples, i)
            if "label" not in example:
                raise UserError(f"{examples.where(i)}: it has no label; a packed set is of images with labels")
            return packed_image(example["image"], side, quality), int(example["label"])
        except BrokenExample as error:
            return error
        except UserError as error:  # of Encoded
            return BrokenExample(i, examples.where(i), str(error))

    def rows(split: str, examples: Examples) -> Iterator[tuple[int, dict[str, Any]]]:
        count = written = size = 0
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for start in range(0, len(examples), AHEAD):
                part = range(start, min(start + AHEAD, len(examples)))
                for i, row in zip(part, pool.map(lambda i: encode(examples, i), part), strict=True):
                    if isinstance(row, BrokenExample):
                        found.append(row)
                        if len(found) > tolerate_broken:
                            raise row
                        continue
                    count, size = count + 1, size + len(row[0])
                    yield i, {"image": row[0], "label": row[1]}
                written += len(part)
                advance(split, written, len(examples))
        info["images"][split], info["left_out"][split], info["bytes"][split] = count, written - count, size

    channels = stored(first, 0)["image"].shape[2]

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version(VERSION)

        def _info(self) -> Any:
            features = {
                "image": tfds.features.Image(shape=(None, None, channels), encoding_format="jpeg"),
                "label": tfds.features.ClassLabel(names=list(first.classes)),
            }
            description = f"{what['source']}, the shorter side at most {side} pixels, JPEG of quality {quality}"
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features), description=description, metadata=info
            )

        def _split_generators(self, dl_manager: Any) -> Any:
            return {split: rows(split, examples) for split, examples in opened.items()}

        def _generate_examples(self) -> Any:
            raise NotImplementedError  # the generators are given

    Builder.name = name
    tfds.disable_progress_bar()
    try:
        builder = Builder(data_dir=out, file_format="array_record")
        # TFDS tells of a download, and makes a folder for it, though there is none.
        with tempfile.TemporaryDirectory() as downloads, contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare(download_dir=downloads)
    except Exception:
        if len(found) > tolerate_broken:
            raise found[-1] from None  # TFDS wraps it
        raise
    finally:
        tfds.enable_progress_bar()
    return str(builder.data_path), dict(info)
