"""What the front doors import: a help text and a table of models wait for no library that they do not need."""

import subprocess
import sys

import pytest

from tests.test_launch import ROOT

DATA = {"grain", "tensorflow", "tensorflow_datasets", "array_record", "sklearn", "scipy", "cv2", "PIL", "simplejpeg"}
OTHERS = {"matplotlib", "torch", "optax", "orbax", "tensorstore", "jinja2", "onnx", "pandas", "chex"}


@pytest.mark.parametrize(
    "arguments, absent",
    [(["--help"], {"jax", "jaxlib", "flax", *DATA, *OTHERS}), (["models", "vgg*"], {*DATA, *OTHERS})],
    ids=["--help", "models"],
)
def test_a_command_imports_no_library_that_it_does_not_need(arguments, absent):
    code = """
import sys
from jaxcnn.__main__ import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *text, imported = done.stdout.splitlines()
    assert len(text) > 10
    assert {name.partition(".")[0] for name in imported.split()} & absent == set()
