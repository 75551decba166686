"""torchvision's compiled operators (nms, roi_align, roi_pool, deform_conv2d) beside a CPU build of PyTorch.

PyPI's torchvision is built for CUDA, and its library names CUDA's libraries. Beside a CPU build of PyTorch they are
missing, though no operator on the CPU calls them: empty ones in their place, made by the C compiler, let it load.
"""

import ctypes
import functools
import importlib.util
import pathlib
import re
import subprocess
import tempfile

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (pip install -e '.[parity]'): not run")

MISSING = "torchvision is not installed (pip install -e '.[parity]'): not run"


def output_of(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@functools.cache
def empty_cuda() -> str | None:
    """Loads empty libraries in the place of CUDA's, if PyTorch has none; says why it could not."""
    found = importlib.util.find_spec("torchvision")
    if found is None:
        return MISSING
    library = pathlib.Path(found.origin).parent / "_C.so"
    if torch.version.cuda is not None or not library.is_file():
        return None
    try:
        needed = re.findall(r"\[(lib(?:cudart|c10_cuda|torch_cuda)\S*)\]", output_of("readelf", "-d", str(library)))
        # "U name" or "U name@version"; those with a version are the CUDA runtime's.
        names = re.findall(r" U (\w*cuda\w*)(@\S+)?$", output_of("nm", "-D", str(library)), re.M)
        with tempfile.TemporaryDirectory() as folder:
            for name in needed:
                runtime = name.startswith("libcudart")
                mine = [symbol for symbol, version in names if bool(version) == runtime] if "torch_" not in name else []
                source = pathlib.Path(folder, f"{name}.c")
                source.write_text("".join(f"void *{symbol}() {{ return 0; }}\n" for symbol in mine))
                versions = pathlib.Path(folder, f"{name}.map")
                versions.write_text(f"{name} {{ global: *; }};\n")
                target = pathlib.Path(folder, name)
                script = [f"-Wl,--version-script={versions}"] if runtime else []
                output_of(
                    "cc", "-w", "-shared", "-fPIC", f"-Wl,-soname,{name}", *script, "-o", str(target), str(source)
                )
                ctypes.CDLL(str(target), ctypes.RTLD_GLOBAL)
    except (OSError, subprocess.CalledProcessError) as error:
        return f"torchvision's operators need empty CUDA libraries, which could not be made: {error}"
    return None


def torchvision_ops():
    """torchvision.ops with its operators; skips the test that asks if they cannot be had, and says why."""
    reason = empty_cuda()
    if reason is None:
        try:
            ops = importlib.import_module("torchvision.ops")
        except RuntimeError as error:
            reason = f"torchvision's operators do not load: {error}"
        else:
            if importlib.import_module("torchvision.extension")._has_ops():
                return ops
            reason = "torchvision's operators do not load beside this PyTorch"
    pytest.skip(reason)
