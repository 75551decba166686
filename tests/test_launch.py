"""The front door: wrong flags, files and folders, disks that fill up. One message, no traceback, nothing lost."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from tests.tiny_runs import ROOT, TINY, call, finish, metrics, read, start, wait_until

EXPERIMENTS = sorted((ROOT / "experiments").glob("*.py"))


def refused(*arguments, code=2, **options):
    """The message of a command that must fail with one message and no traceback, before anything is compiled."""
    done = call(*arguments, **options)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr and "compiled" not in done.stdout
    return done.stderr


@pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda file: file.stem)
def test_every_experiment_names_its_source_command_and_expectation(file):
    text = file.read_text().split('"""')[1]
    assert f"python -m jaxcnn.launch experiments/{file.name}" in text and "Expected:" in text


def test_debug_on_eight_devices(tmp_path):
    finish(ROOT / "experiments" / "lenet_digits.py", "--debug", "--workdir", tmp_path / "run", devices=8)


def test_a_run_directory_holds_what_is_promised(tmp_path):
    run = tmp_path / "run"
    finish(
        TINY, "--workdir", run, "--duration", "20steps", "--dropout", "0.3", "--optimizer.lr", "0.02", "--tensorboard"
    )
    assert read(run, "config.json")["model"]["dropout"] == 0.3
    assert read(run, "config.json")["optimizer"]["learning_rate"] == 0.02
    assert (run / "experiment.py").read_text() == TINY.read_text()
    environment = read(run, "environment.json")
    assert {"git", "python", "versions", "devices", "variables", "dataset"} <= environment.keys()
    assert environment["versions"].keys() >= {"jax", "flax", "optax", "numpy", "jaxcnn"}
    assert environment["dataset"]["name"] == "synthetic" and len(environment["dataset"]["label_hash"]) == 64
    assert set(environment["variables"]) >= {"XLA_FLAGS"}
    train = [line for line in metrics(run) if line["split"] == "train"]
    assert [line["step"] for line in train] == [7, 14, 20]
    assert train[0].keys() >= {"step", "split", "epoch", "loss", "accuracy", "learning_rate", "grad_norm", "count"}
    assert [line["count"] for line in train] == [7 * 16, 7 * 16, 6 * 16]
    raw = (run / "metrics.jsonl").read_text()
    assert '"examples_per_second"' in raw and '"data_wait"' in raw
    assert read(run, "status.json") == {"state": "done", "step": 20}
    assert set(read(run, "result.json")) == {"test", "test_ema", "validation", "validation_ema", "selection"}
    assert list((run / "tensorboard").glob("events*"))


def test_help_lists_every_field_with_its_default():
    out = finish(TINY, "--help").stdout
    for flag in (
        "--dropout",
        "--optimizer.learning-rate",
        "--data.batch-size",
        "--model.width",
        "--workdir",
        "--debug",
    ):
        assert flag in out
    assert "(default: 120steps)" in out and "A run of a few seconds" in out


@pytest.mark.parametrize(
    "flags, message",
    [
        (
            ["--optimzer.learning-rate", "3"],
            "no flag --optimzer.learning-rate; did you mean '--optimizer.learning-rate'",
        ),
        (["--dropuot=0.2"], "did you mean '--dropout'"),
        (["--optimizer.lr", "fast"], "could not convert string to float"),
        (["--duration", "5"], "write 5epochs"),
        (["--duration", "0epochs"], "duration is 0"),
        (["--data.batch-size", "0"], "data.batch_size is 0"),
        (["--model.classes", "7"], "the model has 7 classes, but synthetic/train has 4"),
        (["--data.train-split", "trian"], "did you mean 'train'"),
        (["--checkpoints.metric", "top5"], "checkpoints.metric is 'top5'"),
        (["--optimizer.lr", "-1"], "optimizer.learning_rate is -1"),
        (["--data.image-shape", "8", "8", "3"], "after the transforms (9, 9, 3), but data.image_shape is (8, 8, 3)"),
        (["--model.width", "wide"], "invalid literal for int"),
        (["stray"], "'stray' belongs to no flag"),
    ],
)
def test_wrong_flags(flags, message, tmp_path):
    assert message in refused(TINY, "--workdir", tmp_path / "run", *flags).replace("\n", " ")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "text, message",
    [
        (None, "no such file; did you mean"),
        ("x = 1\n", "it has no function experiment()"),
        ("def experiment():\n    return 3\n", "experiment() returned int and not an Experiment"),
        ("def experiment(:\n", "SyntaxError"),
        ("import nothing_of_this_name\n", "line 1: ModuleNotFoundError"),
        ("def experiment(size):\n    pass\n", "'size' of experiment() needs a default"),
        ("def experiment(seed=3):\n    pass\n", "'seed' of experiment() is a flag already"),
        (
            "from jaxcnn import create_model\n\ndef experiment():\n    return create_model('lenet6')\n",
            "no model 'lenet6'; did you mean 'lenet5'",
        ),
    ],
)
def test_files_that_are_not_experiments(text, message, tmp_path):
    file = tmp_path / "wrong.py"
    (tmp_path / "wrong_.py").write_text("")
    if text is not None:
        file.write_text(text)
    assert message in refused(file)


def test_classes_of_the_experiment_file_reach_flags_workers_and_evaluate(tmp_path):
    file, run = tmp_path / "lab" / "own.py", tmp_path / "run"
    file.parent.mkdir()
    # Found in the file's folder from this directory, by workers, and from the run once the folder is gone.
    (file.parent / "mynet.py").write_text("""
import dataclasses

@dataclasses.dataclass(frozen=True)
class Base:
    top: int = 255
""")
    file.write_text("""
import dataclasses
from mynet import Base
from tests.experiments.tiny import experiment as base

@dataclasses.dataclass(frozen=True)
class Invert(Base):
    def __call__(self, image, rng):
        return self.top - image

def experiment():
    made = base()
    data = dataclasses.replace(made.data, augment=(Invert(),), preprocess=(Invert(),))
    return dataclasses.replace(made, data=data)
""")
    flags = ["--duration", "20steps", "--data.workers", "1", "--data.augment.0.top", "254"]
    finish(file, "--workdir", run, *flags)
    assert read(run, "config.json")["data"]["augment"][0]["top"] == 254
    shutil.rmtree(file.parent)
    result = finish("evaluate", run, "--json", module="jaxcnn").stdout
    expected = read(run, "result.json")
    del expected["selection"]
    assert json.loads(result) == expected


def test_without_arguments_the_usage_is_shown():
    done = call()
    assert done.returncode == 2 and "EXPERIMENT.py" in done.stdout


def test_a_field_that_cannot_be_stored_is_named(tmp_path):
    text = TINY.read_text().replace("TinyNet(dropout=dropout)", "TinyNet(dropout=dropout, width=print)")
    (tmp_path / "odd.py").write_text(text)
    assert "model.width" in refused(tmp_path / "odd.py", "--workdir", tmp_path / "run")


def test_a_missing_data_set_says_how_to_prepare_it(tmp_path):
    file = ROOT / "experiments" / "vgg_cifar10.py"
    message = refused(file, "--workdir", tmp_path / "run", "--data.data-dir", tmp_path)
    assert "dataset 'cifar10' is not prepared" in message and "jaxcnn data prepare cifar10" in message
    assert not (tmp_path / "run").exists()


def test_a_work_directory_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    assert "choose another --workdir" in refused(TINY, "--workdir", tmp_path / "file" / "run")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    assert "but holds thesis.tex" in refused(TINY, "--workdir", tmp_path / "mine")
    assert [entry.name for entry in (tmp_path / "mine").iterdir() if entry.name != "lock"] == ["thesis.tex"]


def test_a_loss_that_is_not_finite_stops_the_run_with_the_step_and_its_examples(tmp_path):
    run = tmp_path / "run"
    done = call(TINY, "--workdir", run, "--optimizer.lr", "1e30")
    assert done.returncode == 1 and "Traceback" not in done.stderr and "not finite" in done.stderr
    status = read(run, "status.json")
    assert status["state"] == "diverged" and 1 <= status["step"] <= 15 and len(status["examples"]) == 16
    assert not [entry for entry in (run / "checkpoints").iterdir() if entry.name.isdigit()]


def test_tensorflow_and_torch_are_never_imported_by_a_run(tmp_path):
    code = f"""
import sys
from jaxcnn.launch import main
assert main([{str(TINY)!r}, "--workdir", {str(tmp_path / "run")!r}, "--duration", "20steps"]) == 0
print(sorted(name for name in ("tensorflow", "torch") if name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_models_and_training_import_without_the_data_libraries():
    code = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("grain", "tensorflow_datasets", "tyro", "cv2", "PIL", "sklearn", "array_record"):
            raise ImportError(name)
sys.meta_path.insert(0, Absent())
import jaxcnn.models, jaxcnn.train.step, jaxcnn.runs.loop, jaxcnn.train.optimizers
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_an_unwritable_compile_cache_is_a_warning(tmp_path):
    (tmp_path / "jaxcnn").write_text("")
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    environment["XDG_CACHE_HOME"] = str(tmp_path)
    command = [sys.executable, "-m", "jaxcnn.launch", TINY, "--workdir", tmp_path / "run", "--duration", "5steps"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "warning: no compile cache" in done.stderr


def test_ones_own_compile_cache_holds_small_programs_too(tmp_path):
    """By default JAX keeps none that compiles within a second."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    environment["JAX_COMPILATION_CACHE_DIR"] = str(tmp_path / "cache")
    for number, cache in enumerate(("miss", "hit")):
        command = [sys.executable, "-m", "jaxcnn.launch", TINY, "--workdir", tmp_path / str(number)]
        done = subprocess.run(
            [*command, "--duration", "5steps"], cwd=ROOT, env=environment, capture_output=True, text=True
        )
        assert re.findall(r"step compiled: .*, compile cache (\w+)", done.stdout) == [cache, cache], done


@pytest.mark.parametrize("tolerated", [0, 1])
def test_a_folder_with_one_broken_image(tolerated, tmp_path):
    from PIL import Image

    for split in ("train", "test"):
        for label, colour in enumerate(("red", "green", "blue", "white")):
            folder = tmp_path / "images" / split / colour
            folder.mkdir(parents=True)
            for i in range(6):
                Image.new("RGB", (9, 9), colour).save(folder / f"{i}.png")
            assert label < 4
    broken = tmp_path / "images" / "train" / "green" / "3.png"
    broken.write_bytes(broken.read_bytes()[:40])
    file = tmp_path / "folder.py"
    text = TINY.read_text().replace(
        "Synthetic(image_shape=(9, 9, 3), classes=4, train=200, test=50)", f"Folder({str(tmp_path / 'images')!r})"
    )
    text = text.replace('"validation"', '"test"')
    file.write_text(text.replace("data.synthetic import Synthetic", "data.folder import Folder"))
    run = tmp_path / "run"
    done = call(file, "--workdir", run, "--duration", "20steps", "--data.tolerate-broken", tolerated)
    assert "Traceback" not in done.stderr
    if tolerated:
        assert done.returncode == 0 and f"warning: passed over {broken}" in done.stdout
        (line,) = (run / "quarantine.jsonl").read_text().splitlines()
        assert str(broken) in line and read(run, "result.json")["test"]["count"] == 24
    else:
        assert done.returncode == 1 and str(broken) in done.stderr and read(run, "status.json")["state"] == "failed"


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="a tmpfs can only be mounted by root on Linux")
def test_a_disk_that_fills_up_during_a_checkpoint_loses_nothing(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=7m", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("not run: this container may not mount a tmpfs")
    try:
        run = disk / "run"
        flags = ["--workdir", run, "--duration", "45steps", "--model.width", "10000"]
        done = call(TINY, *flags)
        assert done.returncode == 1, done.stdout + done.stderr
        assert "Traceback" not in done.stderr and "MiB are free); checkpoint 10 is intact; make room" in done.stderr
        assert read(run, "status.json")["state"] == "failed"
        kept = [int(entry.name) for entry in (run / "checkpoints").iterdir() if entry.name.isdigit()]
        assert kept == [10]  # of the first evaluation, which is the best so far
        subprocess.run(["mount", "-o", "remount,size=40m", disk], check=True)
        out = finish(TINY, *flags).stdout
        assert "resumed at step 10" in out
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


@pytest.fixture
def disk(tmp_path):
    """A file system of 34 MiB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or sys.platform != "linux":
        pytest.skip("not run: a tmpfs can only be mounted by root on Linux")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=34m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("not run: this container may not mount a tmpfs")
    yield folder
    while os.path.ismount(folder):
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_disk_that_becomes_read_only_loses_nothing(disk):
    run = disk / "run"
    process = start(TINY, "--workdir", run, "--duration", "100000steps")
    wait_until(lambda: (run / "checkpoints" / "30").is_dir(), process)
    # A file system with open files does not become read-only, but a second mount of it does, before anybody writes
    # there. It goes over the first in one call: the run never opens a file there that it may write.
    beside = disk.parent / "read only"
    beside.mkdir()
    subprocess.run(["mount", "--bind", disk, beside], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", beside], check=True)
    subprocess.run(["mount", "--bind", beside, disk], check=True)
    subprocess.run(["umount", beside], check=True)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1 and not re.search(r'File ".*/jaxcnn/', errors), errors  # orbax's threads may speak
    assert "Read-only file system" in errors and "intact" in errors
    newest = max(int(entry.name) for entry in (run / "checkpoints").iterdir() if entry.name.isdigit())
    assert "cannot be written" in refused(TINY, "--workdir", run, "--duration", "100000steps")
    subprocess.run(["umount", disk], check=True)
    again = start(TINY, "--workdir", run, "--duration", "100000steps")
    wait_until(lambda: (run / "checkpoints" / str(newest + 15)).is_dir(), again)
    again.terminate()
    out, errors = again.communicate(timeout=120)
    assert again.returncode == 75 and f"resumed at step {newest:,}" in out, out + errors


def test_a_disk_that_fills_up_inside_a_save_loses_nothing(disk):
    """There was room when the save began: another program takes it while the save writes."""
    run = disk / "run"
    flags = ["--workdir", run, "--duration", "45steps", "--model.width", "20000"]
    process = start(TINY, *flags)
    wait_until(lambda: (run / "checkpoints" / "15").is_dir(), process)
    wait_until(lambda: any("tmp" in entry.name for entry in (run / "checkpoints").iterdir()), process)
    with contextlib.suppress(OSError), (disk / "other").open("wb") as other:
        while True:
            other.write(bytes(2**16))
            other.flush()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1 and not re.search(r'File ".*/jaxcnn/', errors), errors  # orbax's threads may speak
    assert "is intact; make room" in errors or "the checkpoints are intact" in errors, errors
    kept = max(int(entry.name) for entry in (run / "checkpoints").iterdir() if entry.name.isdigit())
    (disk / "other").unlink()
    subprocess.run(["mount", "-o", "remount,size=140m", disk], check=True)
    assert f"resumed at step {kept}" in finish(TINY, *flags).stdout


def test_a_write_that_fails_all_the_same_is_reported_with_the_systems_error(tmp_path):
    code = f"""
import sys
from jaxcnn.launch import main
from orbax.checkpoint import CheckpointManager
save, calls = CheckpointManager.save, []
def fail(self, step, *arguments, **keywords):
    calls.append(step)
    if len(calls) == 2:
        raise OSError(28, "No space left on device")
    return save(self, step, *arguments, **keywords)
CheckpointManager.save = fail
sys.exit(main([{str(TINY)!r}, "--workdir", {str(tmp_path / "run")!r}]))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "No space left on device); checkpoint 10 is intact; make room" in done.stderr
    assert read(tmp_path / "run", "status.json")["state"] == "failed"
    assert "resumed at step 10" in finish(TINY, "--workdir", tmp_path / "run").stdout


def test_an_interrupt_at_the_keyboard_prints_no_traceback(tmp_path):
    import signal

    process = start(TINY, "--workdir", tmp_path / "run", "--duration", "100000steps")
    while not (tmp_path / "run" / "checkpoints").is_dir():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 75 and "Traceback" not in err and "SIGINT: saving" in err
    assert pathlib.Path(tmp_path / "run" / "status.json").exists(), out
