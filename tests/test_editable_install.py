"""An editable install is found from anywhere, also from the folder that holds a clone of the package's own name."""

import os
import pathlib
import subprocess
import sys
import zipfile

import pytest

from tests.tiny_runs import ROOT


def test_a_script_beside_a_clone_finds_the_package_and_not_the_clones_folder(tmp_path):
    """Python takes a folder without __init__.py for a package if no other is in the path, and asks finders after it."""
    pytest.importorskip("setuptools", reason="not run: setuptools is not installed")
    clone, site = tmp_path / "work" / "jaxcnn", tmp_path / "site"
    (clone / "jaxcnn").mkdir(parents=True)
    (clone / "jaxcnn" / "__init__.py").write_text("found = True")
    (clone / "tests").mkdir()
    (clone / "tests" / "__init__.py").touch()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (clone / name).write_bytes((ROOT / name).read_bytes())
    build = "import setuptools.build_meta as build; print(build.build_editable('..'))"
    wheel = subprocess.run([sys.executable, "-c", build], cwd=clone, capture_output=True, text=True, check=True)
    with zipfile.ZipFile(clone.parent / wheel.stdout.split()[-1]) as found:
        found.extractall(site)
    script = clone.parent / "script.py"
    script.write_text(
        f"import site; site.addsitedir({str(site)!r})\nimport jaxcnn; print(jaxcnn.found, jaxcnn.__file__)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-S", str(script)]  # -S: without what is installed here, which may be jaxcnn itself
    done = subprocess.run(command, env=environment, cwd=clone.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    word, file = done.stdout.split()
    assert word == "True" and pathlib.Path(file).resolve() == (clone / "jaxcnn" / "__init__.py").resolve()
