"""The file that says what to run: Python with a function experiment() or study(), loaded as a module.

What it raises, and what it lacks, is told by file and line.
"""

import importlib.util
import inspect
import pathlib
import sys
import traceback
from collections.abc import Callable
from types import ModuleType
from typing import Any

from jaxcnn.errors import UserError, did_you_mean

# The name under which an experiment file is loaded, so that classes defined there are found again.
MODULE = "jaxcnn_experiment_file"


def load_module(file: pathlib.Path) -> ModuleType:
    """Runs an experiment file as the module MODULE. Raises whatever the file raises."""
    import cloudpickle

    spec = importlib.util.spec_from_file_location(MODULE, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[MODULE] = module
    spec.loader.exec_module(module)
    # Grain's worker processes cannot import this module, so its classes are sent to them whole.
    cloudpickle.register_pickle_by_value(module)
    return module


def load_function(file: pathlib.Path) -> Callable[..., Any]:
    """The `experiment` function of an experiment file, or the `study` function of a study file.

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
    if callable(getattr(module, "study", None)):
        return module.study
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
