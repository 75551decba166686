"""Few: a part of another source for studies of small sets, some images of each of some classes."""

from dataclasses import dataclass

from jaxcnn.data.examples import Example, Examples, Source, check_index, stored
from jaxcnn.data.splits import known_labels
from jaxcnn.errors import UserError


@dataclass(frozen=True)
class Few:
    """The first `classes` classes of a classification source, and of its training split `each` images of each.

    Other splits keep every image of these classes. Images are taken in the split's order, from number `first` of their
    class on; labels stay as they are. An image that is broken counts for no class. The labels of a whole split are read
    when it is opened, if its source does not know them: seconds for ten thousand small images.

    Example: Few(Tfds("cifar10"), each=40, classes=10) is CIFAR-10 with 40 labels a class.
    """

    source: Source
    each: int
    """Images of each class of the split "train"."""
    classes: int | None = None
    """None: all of them."""
    first: int = 0

    def __post_init__(self):
        least = {"each": 1, "classes": 1, "first": 0}
        for name, bound in least.items():
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < bound):
                raise UserError(f"Few: {name} is {value!r}; it must be a whole number, at least {bound}")

    def open(self, split: str, data_dir: str | None = None) -> Examples:
        """The examples of a split.

        Raises:
          UserError: as the source; or it has fewer classes, or a class too few images.
        """
        whole = self.source.open(split, data_dir)
        classes = len(whole.classes) if self.classes is None else self.classes
        if classes > len(whole.classes):
            raise UserError(f"Few: {whole.name} has {len(whole.classes)} classes, not {classes}")
        labels = known_labels(whole, "Few").tolist()
        of: dict[int, list[int]] = {label: [] for label in range(classes)}
        for row, label in enumerate(labels):
            if label in of:
                of[label].append(row)
        if split == "train":
            of = {label: rows[self.first : self.first + self.each] for label, rows in of.items()}
            short = {whole.classes[label]: len(rows) for label, rows in of.items() if len(rows) < self.each}
            if short:
                name, count = min(short.items(), key=lambda item: item[1])
                raise UserError(
                    f"Few: {whole.name}/{split} has {count} images of {name!r} from number {self.first} on, and "
                    f"{self.each} are asked for; {len(short)} of {classes} classes have too few"
                )
        rows = tuple(sorted(row for rows in of.values() for row in rows))
        names = whole.classes[:classes]
        return FewExamples(whole, rows, tuple(labels[row] for row in rows), whole.name, whole.version, split, names)


@dataclass
class FewExamples:
    """Some rows of a split."""

    whole: Examples
    rows: tuple[int, ...]
    labels: tuple[int, ...]
    name: str
    version: str
    split: str
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> Example:
        return self.whole[self.rows[check_index(i, len(self.rows))]]

    def encoded(self, i: int) -> Example:
        """Example `i`, its image encoded if its source can give it so (data/encoded.py)."""
        return stored(self.whole, self.rows[check_index(i, len(self.rows))])

    def where(self, i: int) -> str:
        return self.whole.where(self.rows[i])
