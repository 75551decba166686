"""Datasets that TensorFlow Datasets has prepared as array_record files, read without TensorFlow.

Reading never downloads and never prepares: `jaxcnn data prepare NAME --data-dir DIR` does, under a lock, so that the
processes of a job do not race for one disk (tfds writes to a folder of another name and renames it: a killed
preparation leaves nothing that is taken for a dataset).
"""

import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from jaxcnn.data.box_rules import BoxRules, Note, ruled
from jaxcnn.data.checks import IGNORED, check_label
from jaxcnn.data.encoded import encoded
from jaxcnn.data.examples import BrokenExample, Example, check_index, check_split
from jaxcnn.data.images import decode
from jaxcnn.data.masks import MaskValues, decode_mask
from jaxcnn.data.splits import overlapping
from jaxcnn.data.tfds_labels import labeled_records
from jaxcnn.data.tfds_objects import Objects, annotations, find_objects, parts
from jaxcnn.errors import UserError, did_you_mean

VERSION = re.compile(r"\d+\.\d+\.\d+")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tfds:
    """A set under DATA_DIR/NAME/[CONFIG/]VERSION, for example `Tfds("imagenet2012")`.

    `name` may carry a configuration, "imagenette/320px-v2"; `version` is exact ("3.0.1"), None the newest that is
    prepared. `image` and `label` are the names of the features. Splits follow TFDS: "train", "train[:90%]",
    "train+test". Images are decoded by `jaxcnn.data.images.decode` from the stored bytes, not by TFDS, so that a CMYK
    JPEG or a PNG in disguise comes out right and a damaged image is a BrokenExample.

    With `mask` an example is an image and its mask, and the classes are those of its pixels:
    `Tfds("oxford_iiit_pet", mask="segmentation_mask", classes=("pet", "ground", "border"), values=(1, 2, 3))`.

    With `objects` an example is an image and its boxes: `Tfds("voc/2007", objects=True)`, or of sets such as coco and
    kitti; and its label too, if the set has one of the same classes. `classes` then names those that are wanted. The
    boxes are known only once an image is read, so that `rules` cannot drop images.
    """

    slices: ClassVar[bool] = True

    name: str
    version: str | None = None
    image: str = "image"
    label: str = "label"
    mask: bool | str | None = None
    """The feature with the class of each pixel; True: the only one that fits; None: labels are read, and no masks."""
    classes: tuple[str, ...] | None = None
    """Of the mask's pixels, in the order of their values, or of the boxes; None: those that the set itself names."""
    values: tuple[int, ...] | None = None
    """The mask's value of each class, if it is not 0, 1, 2, ..."""
    ignored: tuple[int, ...] | None = None
    """The mask's values of pixels that count nowhere; None: 255."""
    objects: bool | str | None = None
    """The feature with boxes; True: the only one that fits; None: labels are read, and no boxes."""
    rules: BoxRules = BoxRules()
    """What becomes of boxes that are not as they should be."""

    def open(self, split: str, data_dir: str | None = None) -> "TfdsExamples":
        """The examples of one split under `data_dir`, else under TFDS_DATA_DIR, else under ~/tensorflow_datasets."""
        import tensorflow_datasets as tfds

        folder = prepared(self.name, self.version, data_dir)
        builder = read_builder(self.name, folder)
        info = builder.info
        features: Any = info.features  # a FeaturesDict, which its stub does not say
        # Sorted, for TFDS gives them in another order each time.
        images = [key for key, feature in sorted(features.items()) if isinstance(feature, tfds.features.Image)]
        where = f"dataset {self.name!r} under {folder}"
        objects = None
        if self.objects:
            objects, part, classes, values = *self._objects(features, where), None
            self._check_feature("image", self.image, images, features, where)
        else:
            part, classes, values = self._part(features, images, where)
        if str(features[self.image].np_dtype) != "uint8":
            raise UserError(
                f"dataset {self.name!r}: the feature {self.image!r} is {features[self.image].np_dtype}; "
                "only 8-bit images are read"
            )

        for each in split.split("+"):
            check_split(each.partition("[")[0].strip(), info.splits, f"dataset {self.name!r} under {folder}")
        try:
            instructions = info.splits[split].file_instructions
            files = [instruction.filename for instruction in instructions]
            if not files:
                raise UserError(f"dataset {self.name!r}: split {split!r} has no examples; widen it")
            if twice := _twice(instructions):
                raise overlapping(split, twice)
            if objects is None and not self.mask and part is not None:
                records: Any = labeled_records(builder, split, self.image, part)
            else:
                skip = tfds.decode.SkipDecoding()
                records = builder.as_data_source(split, decoders={key: skip for key in images})  # pyright: ignore[reportCallIssue]
        except (ValueError, AssertionError) as cause:
            raise UserError(
                f"dataset {self.name!r}: split {split!r} cannot be read: {str(cause).splitlines()[0]} "
                "Examples: 'train[:90%]', 'train[1000:]'"
            ) from cause
        missing = [file for file in files if not os.path.exists(file)]
        if missing:
            raise UserError(
                f"dataset {self.name!r}: {len(missing)} of {len(files)} files of split {split!r} are missing, "
                f"the first is {missing[0]}; copy them again, or remove {folder} and "
                f"run: jaxcnn data prepare {self.name} --data-dir {find_data_dir(data_dir)}"
            )
        channels = features[self.image].shape[-1]
        return TfdsExamples(self, str(info.version), split, classes, channels, records, part, values, objects)

    def _objects(self, features, where: str) -> tuple[Objects, str | None, tuple[str, ...]]:
        """Where the objects are, the feature of the image's label if it is of the same classes, and the classes."""
        if self.mask:
            raise UserError(f"{where}: give mask or objects, not both")
        if self.rules.no_objects == "drop" or self.rules.turned != "upright":
            raise UserError(
                f"{where}: TFDS's boxes are shares of the image, and read with it: rules.no_objects is "
                '"keep" or "refuse" there, and rules.turned "upright"'
            )
        objects = find_objects(features, self.objects or True, self.name, where)
        unknown = [name for name in self.classes or () if name not in objects.names]
        if unknown:
            hint = did_you_mean(unknown[0], objects.names) or ";"
            raise UserError(f"{where}: its objects have no class {unknown[0]!r}{hint} {', '.join(objects.names[:20])}")
        classes = self.classes or objects.names
        names = getattr(features[self.label], "names", None) if self.label in features else None
        return objects, (self.label if names is not None and tuple(names) == classes else None), classes

    def _part(self, features, images: list[str], where: str) -> tuple[str, tuple[str, ...], MaskValues | None]:
        """The feature that is read beside the image, its classes, and what the values mean if it is a mask."""
        import tensorflow_datasets as tfds

        labels = [key for key, feature in sorted(features.items()) if isinstance(feature, tfds.features.ClassLabel)]
        masks = [key for key in images if key != self.image and features[key].shape[-1] == 1]
        if self.mask is True and len(masks) != 1:
            found = f"several: {', '.join(masks)}; name one" if masks else "none"
            raise UserError(f"{where}: of features that can be a mask (images of one channel) it has {found}")
        part = (masks[0] if self.mask is True else self.mask) or self.label
        other = ("mask", part, masks) if self.mask else ("label", part, labels)
        for field, key, fitting in (("image", self.image, images), other):
            self._check_feature(field, key, fitting, features, where)
        if not self.mask:
            return part, tuple(features[part].names), None
        classes = self.classes or tuple(getattr(features[part], "names", None) or ())  # TFDS's LabeledImage has them
        if not classes:
            raise UserError(
                f"{where} does not name the classes of its masks; give classes=(...) in the order of their values"
            )
        ignored = (IGNORED,) if self.ignored is None else self.ignored
        return part, classes, MaskValues(len(classes), self.values, ignored)

    def _check_feature(self, field: str, key: str, fitting: list[str], features, where: str) -> None:
        if key not in fitting:
            kind = "is not a feature of it" if key not in features else f"is of kind {type(features[key]).__name__}"
            raise UserError(
                f"{where}: {field}={key!r} {kind}{did_you_mean(key, fitting) or ';'}"
                f" features that fit: {', '.join(fitting) or 'none'}; all features: {', '.join(sorted(features))}"
            )


def _twice(instructions: Sequence[Any]) -> int:
    """How many records TFDS would read again: of each file, those that another instruction has too."""
    twice = 0
    furthest: dict[str, int] = {}
    for each in sorted(instructions, key=lambda each: (each.filename, each.skip)):
        start, end = each.skip, each.examples_in_shard if each.take == -1 else each.skip + each.take
        before = furthest.get(each.filename, 0)
        twice += max(0, min(before, end) - start)
        furthest[each.filename] = max(before, end)
    return twice


class TfdsExamples:
    """Images with labels, or, with `values`, with masks; `part` is the feature of these. With `objects` also boxes."""

    def __init__(
        self,
        source: Tfds,
        version: str,
        split: str,
        classes: tuple[str, ...],
        channels: int | None,
        records,
        part: str | None,
        values: MaskValues | None,
        objects: Objects | None = None,
    ):
        self._objects, self._rules = objects, source.rules
        self.name, self.version, self.split, self.classes = source.name, version, split, classes
        self._image, self._part, self._values, self._records = source.image, part, values, records
        self._channels = 1 if channels == 1 else 3

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, i: int) -> Example:
        return self._read(i, decode)

    def encoded(self, i: int) -> Example:
        """Example `i`, its image encoded if it can be decoded in part (data/encoded.py). Raises as [i]."""
        return self._read(i, encoded)

    def _read(self, i: int, decoding: Callable[[bytes, int], Any]) -> Example:
        i = check_index(i, len(self))
        try:
            record = self._records[i]
            part: Any = record[self._part] if self._part else None
            image = decoding(record[self._image], self._channels)
            if self._values is not None:
                return {"image": image, "mask": self._values.to_classes(decode_mask(part))}
            boxes: Example = {}
            if self._objects is not None:
                size = image.shape[:2]
                given = annotations(self._objects, record, size, self.classes, self._rules)
                boxes = parts(given, self._rules, size)
        except MemoryError:
            raise
        except (
            Exception
        ) as cause:  # a damaged file: RuntimeError of array_record, DecodeError of protobuf, ValueError of decode
            raise BrokenExample(i, self.where(i), str(cause) or type(cause).__name__) from cause
        label = {"label": check_label(self, i, part)} if self._part else {}
        return {"image": image} | label | boxes

    def notes(self, i: int) -> list[Note]:
        """What the rules did to the boxes of example `i`, which is read for it."""
        if self._objects is None:
            return []
        try:
            record = self._records[i]
            size = decode(record[self._image], self._channels).shape[:2]
            given = annotations(self._objects, record, size, self.classes, self._rules)
        except Exception:  # reading it says why
            return []
        return ruled(self._rules, given, np.array([size], float)).notes.get(0, [])

    def where(self, i: int) -> str:
        """The example's place in the split as asked for: "fashion_mnist/train[17]", "fashion_mnist/train[:90%][17]"."""
        return f"{self.name}/{self.split}[{i}]"


def find_data_dir(data_dir: str | None) -> str:
    """`data_dir`, else the environment's TFDS_DATA_DIR, else TFDS's own default ~/tensorflow_datasets."""
    data_dir = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    if "://" in data_dir:
        raise UserError(
            f"data_dir {data_dir}: array_record files are read from a mounted file system only; "
            "mount the bucket (gcsfuse, ...) or copy it"
        )
    return os.path.abspath(os.path.expanduser(data_dir))


def prepared(name: str, version: str | None = None, data_dir: str | None = None) -> str:
    """The folder of a prepared dataset, in its newest version unless `version` names one; UserError where there is
    none.
    """
    data_dir = find_data_dir(data_dir)
    if not re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", name) or VERSION.fullmatch(name.rpartition("/")[2]):
        raise UserError(
            f"dataset name {name!r} is not NAME or NAME/CONFIG; a version is given apart, as version='3.0.1'"
        )
    versions = versions_in(os.path.join(data_dir, name))
    if versions and (version is None or version in versions):
        return os.path.join(data_dir, name, version or versions[-1])
    run = f"run: jaxcnn data prepare {name} --data-dir {data_dir}"
    if versions:
        raise UserError(
            f"dataset {name!r} is prepared under {data_dir} in version {', '.join(versions)}, not {version}; "
            f"ask for one of these, or {run} --version {version}"
        )
    configs = [
        config for config in folders(os.path.join(data_dir, name)) if versions_in(os.path.join(data_dir, name, config))
    ]
    if configs:
        raise UserError(
            f"dataset {name!r} under {data_dir} has configurations; "
            f"name one: {', '.join(f'{name}/{config}' for config in configs)}"
        )
    hint = ""
    if os.path.basename(data_dir) == name or versions_in(os.path.dirname(data_dir)):
        hint = f"; the data_dir is the folder that holds {name}/, which may be a folder above this one"
    raise UserError(
        f"dataset {name!r} is not prepared under {data_dir}; {run}{did_you_mean(name, prepared_names(data_dir))}{hint}"
    )


def prepared_names(data_dir: str) -> list[str]:
    """The datasets that are prepared under `data_dir`: NAME or NAME/CONFIG."""
    names = []
    for name in folders(data_dir):
        if versions_in(os.path.join(data_dir, name)):
            names.append(name)
        names += [
            f"{name}/{c}" for c in folders(os.path.join(data_dir, name)) if versions_in(os.path.join(data_dir, name, c))
        ]
    return names


def versions_in(path: str) -> list[str]:
    """Version folders with a finished dataset, oldest first; TFDS's "3.0.1.incomplete..." is not one."""
    found = [
        v for v in folders(path) if VERSION.fullmatch(v) and os.path.exists(os.path.join(path, v, "dataset_info.json"))
    ]
    return sorted(found, key=lambda v: tuple(map(int, v.split("."))))


def folders(path: str) -> list[str]:
    """Sorted names of the folders in `path`, none where it is no folder or must not be read."""
    try:
        with os.scandir(path) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir())
    except OSError:
        return []


def read_builder(name: str, folder: str):
    """TFDS's builder for a prepared folder, in a format with random access."""
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder_from_directory(folder)
    except Exception as cause:  # protobuf's ParseError, ValueError, KeyError, ...
        raise UserError(
            f"dataset {name!r}: {folder} has a damaged or too old description ({str(cause).strip()}); "
            "remove the folder and prepare it again"
        ) from cause
    formats = {str(f.value) for f in builder.info.available_file_formats()}
    if "array_record" not in formats:
        raise UserError(
            f"dataset {name!r} under {folder} is stored as {', '.join(sorted(formats)) or 'an unknown format'}, "
            "without the random access of array_record; "
            f"run: jaxcnn data prepare {name} --data-dir OTHER_FOLDER, or convert it where TensorFlow is installed: "
            f"tfds convert_format --dataset_dir={folder} --out_file_format=array_record "
            f"--out_dir=OTHER_FOLDER/{name}/{os.path.basename(folder)}"
        )
    return builder


def prepare(name: str, data_dir: str | None = None, version: str | None = None) -> str:
    """Downloads and prepares a dataset as array_record; returns one line that says where it is. Prepared already: says
    so.

    Of several at once under one `data_dir`, one prepares and the others wait for it. Some datasets need TensorFlow to
    be prepared (those that encode arrays as images); its absence is a UserError. GPUs are hidden from TensorFlow.
    """
    data_dir = find_data_dir(data_dir)
    os.makedirs(data_dir, exist_ok=True)
    with locked(
        os.path.join(data_dir, f".{name.replace('/', '-')}.lock"), f"another process prepares {name}: waiting for it"
    ):
        try:
            folder = prepared(name, version, data_dir)
        except UserError:
            folder = None
        if folder:
            read_builder(name, folder)
            return f"{name} {os.path.basename(folder)} is already prepared in {folder}"
        folder = download_and_prepare(name, data_dir, version)
    return f"{name} {os.path.basename(folder)} is prepared in {folder}"


def download_and_prepare(name: str, data_dir: str, version: str | None) -> str:
    import tensorflow_datasets as tfds

    full_name = f"{name}:{version}" if version else name
    try:
        try:
            import tensorflow as tf

            tf.config.set_visible_devices([], "GPU")
        except ModuleNotFoundError:
            pass  # many datasets need none
        builder = tfds.builder(full_name, data_dir=data_dir, try_gcs=False, file_format="array_record")
        builder.download_and_prepare()
    except tfds.core.DatasetNotFoundError as cause:
        known = tfds.list_builders(with_community_datasets=False)
        raise UserError(f"TFDS knows no dataset {full_name!r}{did_you_mean(name, known)}") from cause
    except ModuleNotFoundError as cause:
        if "tensorflow" in f"{cause.name} {cause}".lower():  # TFDS raises it anew, without the module's name
            raise UserError(
                f"preparing {name!r} needs TensorFlow (reading it will not): pip install 'jaxcnn[prepare]'"
            ) from cause
        raise UserError(f"preparing {name!r} needs a package that is not installed: {cause}") from cause
    except (
        AssertionError,
        ValueError,
        OSError,
    ) as cause:  # files to be fetched by hand, an unknown version, the network, the disk
        raise UserError(f"preparing {full_name!r} under {data_dir} failed: {str(cause).strip()}") from cause
    return str(builder.data_path)


@contextmanager
def locked(path: str, waiting: str) -> Iterator[None]:
    """Holds the lock file `path`; logs `waiting` where another process holds it. The lock goes with the process that
    held it.
    """
    import fcntl

    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.warning(waiting)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:  # a file system without locks: ENOLCK, ENOSYS, EOPNOTSUPP
            log.warning(f"{path}: not locked ({error.strerror}): see to it that no other process prepares this data")
        yield
