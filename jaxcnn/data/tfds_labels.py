"""The image and the label of TFDS's records, and nothing else of them: TFDS's own reading of an example takes as long
as the reading of its bytes and half the decoding of a small JPEG.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class LabeledRecords:
    """{image: bytes, label: int} of each record. Pickles, since workers read."""

    image: str
    label: str
    records: Sequence[bytes]

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, i: int) -> dict[str, Any]:
        """Raises DecodeError for a damaged record, ValueError if it lacks a feature."""
        from tensorflow_datasets.proto import tf_example_pb2

        example: Any = tf_example_pb2.Example.FromString(self.records[i])  # pyright: ignore[reportAttributeAccessIssue]
        there = example.features.feature
        missing = [name for name in (self.image, self.label) if name not in there]
        if missing:
            raise ValueError(f"the record has no {' and no '.join(missing)}")
        return {
            self.image: there[self.image].bytes_list.value[0],
            self.label: there[self.label].int64_list.value[0],
        }


def labeled_records(builder: Any, split: str, image: str, label: str) -> LabeledRecords:
    """The records of a split, from TFDS's builder. Raises as its as_data_source."""
    import tensorflow_datasets as tfds

    raw = tfds.decode.DeserializeMethod.RAW_BYTES
    return LabeledRecords(image, label, builder.as_data_source(split, deserialize_method=raw))
