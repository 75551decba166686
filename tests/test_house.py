"""The arrows between the rooms of jaxcnn point one way, and files are short and have names that say what is in them.

The sources are read, not imported, so that imports inside functions count too; those under `if TYPE_CHECKING` do not.
"""

import ast
import pathlib
import re
from collections.abc import Iterator

import pytest

from tests.tiny_runs import ROOT

PACKAGE = ROOT / "jaxcnn"

GROUND = {"errors", "text", "files", "terminal", "stop", "devices", "parts", "trust", "config", "experiment_file"}
"""What any room may stand on: messages, files, the form of configs, the loader of experiment files."""
PARTS = {"data", "models", "ops", "metrics"}
RUNS = {*GROUND, *PARTS, "tasks", "train", "summary", "experiment", "runs"}
STUDIES = {*RUNS, "explain", "report", "cluster", "studies"}

MAY_IMPORT = {
    "errors": set(),
    "text": set(),
    "terminal": {"errors"},
    "files": {"errors"},
    "stop": {"terminal"},
    "devices": {"errors"},
    "parts": {"errors"},
    "trust": {"files"},
    "config": {"errors", "jaxcnn"},
    "experiment_file": {"errors"},
    "ops": {"errors"},
    "data": {"errors", "files", "parts", "ops"},
    "models": {"errors", "files", "ops"},
    "metrics": {"errors", "ops"},
    "train": {"errors", "parts", *PARTS},
    "tasks": {"errors", "parts", *PARTS, "train"},
    "summary": {"errors", "files", "text", "models", "ops"},
    "explain": {"errors", "models", "ops", "summary"},
    "experiment": {"errors", "parts", *PARTS, "tasks", "train"},
    "cluster": {*GROUND, "train"},
    "runs": RUNS,
    "report": RUNS | {"explain"},
    "studies": RUNS | {"explain", "report"},
    "flags": RUNS | {"cluster"},
    "launch": STUDIES | {"flags"},
    "prove": STUDIES | {"flags", "launch"},
    "commands": STUDIES | {"flags", "launch", "prove", "jaxcnn"},
    "__main__": STUDIES | {"flags", "commands"},
    "jaxcnn": {*RUNS, "studies"},  # the public names
}
"""The rooms and single files that each may import, lowest first; "jaxcnn" is the package's own __init__.py."""

EXCEPTIONS = {
    ("jaxcnn.train", "jaxcnn.runs"): "jaxcnn.train(...) can be called: the package hands the call on to runs/run.py",
}
"""(module, room it imports): why. A line that is not needed any more fails the test."""

PURE = {"train", "models", "ops"}
NOT_IN_PURE = {
    *("grain", "tensorflow", "tensorflow_datasets", "cv2", "PIL", "array_record", "sklearn"),  # where data comes from
    *("rich", "matplotlib", "tyro", "orbax"),  # what is shown and stored
    *("os", "pathlib", "io", "json", "shutil", "tempfile", "time", "datetime", "subprocess", "threading", "socket"),
}
IMPURE = {
    "jaxcnn.ops.onednn_library": (
        {"os", "pathlib", "shutil", "subprocess", "tempfile", "threading"},
        "finds and compiles a library",
    ),
    "jaxcnn.train": ({"pathlib"}, "the type of jaxcnn.train's argument"),
    "jaxcnn.models.hed": ({"os", "pathlib"}, "the file of weights in an installed package"),
    "jaxcnn.models.mtcnn": ({"os", "pathlib"}, "the files of weights in an installed package"),
    "jaxcnn.models.pretrained": ({"os", "pathlib", "json"}, "the file of weights and the config.json beside it"),
}

LONG = 430
LONGER: dict[str, int] = {}
"""Files that are longer, with the lines they may have: to shrink, never to grow."""


def module_of(file: pathlib.Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_of(file): file for file in sorted(PACKAGE.rglob("*.py"))}


def imports(tree: ast.AST) -> Iterator[str]:
    """The full names of the modules, or of the names in modules, that a file imports anywhere when it runs."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                yield from imports(ast.Module([other], []))
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "relative imports hide the room"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        else:
            yield from imports(node)


IMPORTS = {module: set(imports(ast.parse(file.read_text()))) for module, file in FILES.items()}


def room_of(name: str) -> str:
    """Of a dotted name: "jaxcnn.runs.loop.run" is in "runs"; a public name, "jaxcnn.create_model", in "jaxcnn"."""
    first, *rest = name.split(".")
    assert first == "jaxcnn"
    return rest[0] if rest and f"jaxcnn.{rest[0]}" in FILES else "jaxcnn"


ARROWS = {
    (module, room_of(name))
    for module, names in IMPORTS.items()
    for name in names
    if re.match(r"jaxcnn(\.|$)", name) and room_of(name) != room_of(module)
}


def test_every_room_is_in_the_table():
    assert {room_of(module) for module in FILES} == MAY_IMPORT.keys()


def test_the_arrows_point_one_way():
    wrong = sorted(
        f"{module} imports jaxcnn.{room}, which {room_of(module)} may not"
        for module, room in ARROWS
        if room not in MAY_IMPORT[room_of(module)] and (module, f"jaxcnn.{room}") not in EXCEPTIONS
    )
    assert not wrong, "\n".join(wrong)


def test_no_exception_is_left_that_nothing_needs():
    needed = {(module, f"jaxcnn.{room}") for module, room in ARROWS if room not in MAY_IMPORT[room_of(module)]}
    assert EXCEPTIONS.keys() <= needed


def test_each_room_of_the_table_may_import_only_those_above_it():
    """So that the table has no circle; config asks the package, lazily, which of its classes has a public name."""
    rooms = list(MAY_IMPORT)
    for number, room in enumerate(rooms):
        below = MAY_IMPORT[room] - {*rooms[: number + 1]}
        assert not below or (room, below) in [("config", {"jaxcnn"}), ("commands", {"jaxcnn"})], (room, below)


def test_no_part_knows_an_experiment_a_run_or_a_command():
    parts = ["ops", "data", "models", "metrics", "train", "tasks", "summary", "explain"]
    above = {"experiment", "runs", "report", "studies", "flags", "launch", "prove", "commands", "cluster"}
    assert not [room for room in parts if MAY_IMPORT[room] & above]


@pytest.mark.parametrize("module", [module for module in FILES if room_of(module) in PURE])
def test_train_models_and_ops_know_no_files_clocks_or_data(module):
    allowed = IMPURE.get(module, (set(), ""))[0]
    found = {name.split(".")[0] for name in IMPORTS[module]} & NOT_IN_PURE
    assert found == allowed


def test_nothing_of_jax_is_used_that_is_private():
    private = {module: names for module, names in IMPORTS.items() if any(name.startswith("jax._src") for name in names)}
    assert not private


def test_files_are_short_and_have_names_of_their_own():
    lines = {str(file.relative_to(PACKAGE)): len(file.read_text().splitlines()) for file in FILES.values()}
    long = {name: count for name, count in lines.items() if count > LONG}
    assert long.keys() == LONGER.keys(), f"more than {LONG} lines, or an exception that is not needed any more"
    assert all(count <= LONGER[name] for name, count in long.items()), long
    words = re.compile(r"(^|/|_)(utils?|common|helpers?|misc|core|base)(_|/|\.|$)")
    assert not [name for name in lines if words.search(name)]


METRIC = re.compile(r"(?<![a-z])(accurac(y|ies)|top[-_ ]?[15]|mean_iou)(?![a-z0-9])", re.I)


def words(tree: ast.AST) -> Iterator[str]:
    """The identifiers and strings of a file, without its docstrings and without paragraphs of prose."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) < 200:
            yield node.value
        yield from (getattr(node, field) for field in ("id", "attr", "arg", "name") if hasattr(node, field))
        yield from words(node)


NAMELESS = ["train", "experiment", "runs", "report", "studies", "prove", "launch", "commands", "flags", "cluster"]


def test_names_of_metrics_are_found_where_they_are():
    assert any(METRIC.search(str(word)) for word in words(ast.parse((PACKAGE / "tasks/classification.py").read_text())))


@pytest.mark.parametrize("room", NAMELESS)
def test_no_metric_is_named_outside_of_tasks(room):
    """Names, order and direction of the metrics come from the task: the loop, displays, checkpoints know none."""
    named = {
        f"{module}: {word}"
        for module, file in FILES.items()
        if room_of(module) == room
        for word in words(ast.parse(file.read_text()))
        if isinstance(word, str) and METRIC.search(word)
    }
    named |= {
        f"{page.relative_to(PACKAGE)}: {line.strip()}"
        for page in (PACKAGE / room).rglob("*.html")
        for line in page.read_text().splitlines()
        if METRIC.search(line)
    }
    assert not named, "\n".join(sorted(named))
