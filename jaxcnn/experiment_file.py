"""The file that says what to run: Python with a function experiment(), study() or sweep(), loaded as a module.

Modules in the file's folder can be imported by it, from whatever directory it is started; they are kept with the run,
in its folder code/, and read from there later. What the file raises, and what it lacks, is told by file and line.
"""

import ast
import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import inspect
import os
import pathlib
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from types import CodeType, ModuleType
from typing import Any

from jaxcnn.errors import UserError, did_you_mean

# The name under which an experiment file is loaded, so that classes defined there are found again.
MODULE = "jaxcnn_experiment_file"
FILE, FOLDER = "experiment.py", "code"
"""Where a run directory keeps the file and the modules from its folder."""


class Folder(importlib.abc.MetaPathFinder):
    """Finds the modules that lie in one folder, before Python looks in its path; what is installed goes before both.

    So a file named as a library of somebody's does not take its place, and nothing depends on the current directory.
    """

    def __init__(self, folder: pathlib.Path, launched: bool):
        self.folder, self.launched = folder, launched
        self.sources: dict[str, bytes] = {}
        """{path in a run directory: text} of the file and of each module, as it was when it was loaded."""
        self.loaded: set[str] = set()

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        found = self.find(fullname)
        if found is None:
            return None
        self.loaded.add(fullname)
        if found.is_dir():
            spec = importlib.machinery.ModuleSpec(fullname, None, is_package=True)
            spec.submodule_search_locations = [str(found)]
            return spec
        package = [str(found.parent)] if found.name == "__init__.py" else None
        loader = _Loader(fullname, found, self)
        return importlib.util.spec_from_file_location(
            fullname, found, loader=loader, submodule_search_locations=package
        )

    def find(self, name: str) -> pathlib.Path | None:
        """The file of a module of this folder, or a folder of such files; None for any other module."""
        top = name.partition(".")[0]
        path = self.folder.joinpath(*name.split("."))
        files = (path / "__init__.py", path.with_name(f"{path.name}.py"))
        found = next((file for file in files if file.is_file()), None)
        if found is None and path.is_dir() and any(path.glob("*.py")):
            found = path
        return None if found is None or top in sys.stdlib_module_names or self._installed(top) else found

    def _installed(self, name: str) -> bool:
        here = {self.folder.resolve(), pathlib.Path.cwd()}
        others = [path for path in sys.path if path and pathlib.Path(path).resolve() not in here]
        return importlib.machinery.PathFinder.find_spec(name, others) is not None

    def read(self) -> dict[str, bytes]:
        """`sources`, and the modules of this folder that they import in functions that have not been called yet."""
        waiting = list(self.sources.items())
        while waiting:
            path, text = waiting.pop()
            for name in _imported(text, pathlib.PurePath(path)):
                file = self.find(name)
                if file is None or file.is_dir():
                    continue
                key = self.stored_path(file)
                if key is not None and key not in self.sources:
                    self.sources[key] = file.read_bytes()
                    waiting.append((key, self.sources[key]))
        return self.sources

    def not_kept(self) -> list[str]:
        """The modules, by their first names, that these sources import from the current folder, not from this one."""
        found = set()
        for path, text in self.sources.items():
            for name in _imported(text, pathlib.PurePath(path)):
                top = name.partition(".")[0]
                if top != "jaxcnn" and top not in sys.stdlib_module_names and self.find(top) is None:
                    here = importlib.machinery.PathFinder.find_spec(top, [str(pathlib.Path.cwd())])
                    found |= {top} if here is not None and not self._installed(top) else set()
        return sorted(found)

    def stored_path(self, file: pathlib.Path) -> str:
        """Where a run directory keeps a file of this folder."""
        return str(pathlib.PurePath(FOLDER, file.relative_to(self.folder)))


class _Loader(importlib.machinery.SourceFileLoader):
    """Reads a module from its text, never from a cache beside it, and keeps the text."""

    def __init__(self, name: str, file: pathlib.Path, folder: Folder, key: str | None = None):
        super().__init__(name, str(file))
        self.folder, self.key = folder, key or folder.stored_path(file)

    def get_code(self, fullname: str) -> CodeType:
        text = self.get_data(self.path)
        self.folder.sources[self.key] = text
        return self.source_to_code(text, self.path)

    def exec_module(self, module: ModuleType) -> None:
        import cloudpickle

        super().exec_module(module)
        # Grain's worker processes cannot import this module, so its classes are sent to them whole.
        cloudpickle.register_pickle_by_value(module)


_folders: list[Folder] = []  # at most one: of the file that was loaded last
_read: dict[pathlib.Path, Folder] = {}  # by experiment file


def load_module(file: pathlib.Path, folder: pathlib.Path | None = None) -> ModuleType:
    """Runs an experiment file as the module MODULE, with the modules of its folder, or of `folder`, at hand.

    The modules of the file before are forgotten: two files may have different ones under one name.

    Raises whatever the file raises.
    """
    _forget()
    path = pathlib.Path(os.path.abspath(folder or file.parent))
    if folder is not None:  # a run's own copies: whatever else has their names in this process is another module
        names = {each.stem for each in path.glob("*")}
        for name in [name for name in sys.modules if name.partition(".")[0] in names]:
            del sys.modules[name]
    finder = Folder(path, launched=folder is None)
    _folders[:] = [finder]
    _read[file.absolute()] = finder
    sys.meta_path.insert(0, finder)
    loader = _Loader(MODULE, file, finder, FILE)
    spec = importlib.util.spec_from_file_location(MODULE, file, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[MODULE] = module
    loader.exec_module(module)
    return module


@contextlib.contextmanager
def launched_file() -> Iterator[None]:
    """Puts the file that is being launched, if there is one, back in its place after the code of another run."""
    before = [(folder, {name: sys.modules.get(name) for name in (MODULE, *folder.loaded)}) for folder in _folders]
    try:
        yield
    finally:
        for folder, modules in before:
            if folder.launched:
                _forget()
                sys.modules.update({name: module for name, module in modules.items() if module is not None})
                sys.meta_path.insert(0, folder)
                _folders[:] = [folder]


def _forget() -> None:
    for before in _folders:
        sys.meta_path.remove(before)
        for name in before.loaded:
            sys.modules.pop(name, None)
    _folders.clear()


def sources(file: pathlib.Path) -> dict[str, bytes]:
    """{path in a run directory: text} of an experiment file and of what it imports from its folder.

    As they were when the file was loaded; one that was not is read alone.
    """
    finder = _read.get(file.absolute())
    return {FILE: file.read_bytes()} if finder is None else finder.read()


def not_kept(file: pathlib.Path) -> list[str]:
    """What an experiment file imports from the current folder, which no run keeps: it is found from there alone."""
    finder = _read.get(file.absolute())
    return [] if finder is None else finder.not_kept()


def _imported(text: bytes, path: pathlib.PurePath) -> Iterator[str]:
    """The names of all modules that a module imports, and of what it imports from them, which may be modules too."""
    package = path.parent.parts[1:]  # without FOLDER
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names: Sequence[str] = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)] if base else []
        else:
            continue
        for name in names:
            parts = name.split(".")
            yield from (".".join(parts[: end + 1]) for end in range(len(parts)))


def load_function(file: pathlib.Path) -> Callable[..., Any]:
    """The `experiment` function of an experiment file, the `study` of a study's or the `sweep` of a sweep's.

    Raises:
      UserError: there is no such file, it fails when it is run, or it has no such function.
    """
    if not file.is_file():
        near = [str(other) for other in file.parent.glob("*.py")] if file.parent.is_dir() else []
        raise UserError(f"{file}: no such file{did_you_mean(str(file), near)}")
    if file.suffix != ".py":
        raise UserError(f"{file}: an experiment is a Python file, NAME.py, with a function experiment() -> Experiment")
    try:
        module = load_module(file)
    except Exception as error:
        raise failure(file, error) from error
    found = [value for name in ("study", "sweep") if callable(value := getattr(module, name, None))]
    own = [function for function in found if getattr(function, "__module__", None) == MODULE]  # and not imported
    if own or found:
        return (own or found)[0]
    function = getattr(module, "experiment", None)
    if not callable(function):
        functions = [name for name, value in vars(module).items() if inspect.isfunction(value) and name[0] != "_"]
        raise UserError(
            f"{file}: not an experiment: it has no function experiment() -> Experiment"
            + did_you_mean("experiment", functions)
        )
    return function


def failure(file: pathlib.Path, error: Exception) -> UserError:
    """What to tell of an exception that the file's own code has raised; a UserError says itself what is wrong."""
    if isinstance(error, UserError):
        return UserError(f"{file}: {error}")
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    where = f"line {lines[-1]}: " if lines else ""
    return UserError(f"{file}: {where}{type(error).__name__}: {error}")


def docstring() -> str:
    """Of the file that was loaded last, "" where it has none."""
    return inspect.getdoc(sys.modules[MODULE]) or ""
