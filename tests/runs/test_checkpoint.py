"""A checkpoint is restored as it was saved, or it is reported and the one before it used; never anything between."""

import json
import os
import pathlib
import random
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn import files
from jaxcnn.errors import UserError
from jaxcnn.experiment import Data, Experiment
from jaxcnn.runs import checkpoint, seal
from jaxcnn.runs.run_directory import RunDirectory
from tests.nets import TinyNet

EXPERIMENT = Experiment(TinyNet(), Data((9, 9, 3)))
CONFIG = {"class": "x:Y", "seed": 0, "data": {"workers": 0}}


def state_at(step):
    return {
        "kernel": jnp.arange(60.0).reshape(3, 20) * step,
        "bias": jnp.ones(5, jnp.bfloat16) * step,
        "step": jnp.int32(step),
        "key": jax.random.key(step),
    }


ABSTRACT = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state_at(1))


def make_run(path, seed=0, steps=(1, 2), saved=True):
    """A run directory with a checkpoint for each step, and a line logged before each."""
    path.mkdir(parents=True)
    directory = RunDirectory(path)
    files.write_json(path / "config.json", CONFIG | {"seed": seed})
    manager = checkpoint.open_manager(directory.checkpoints, EXPERIMENT)
    for step in steps:
        directory.log(
            {"step": step, "split": "train", "loss": 1 / step, "examples_per_second": random.randrange(10**6, 10**7)}
        )
        note = {"evaluated": True, "evaluations": {}, **directory.position()}
        checkpoint.save(manager, step, state_at(step), note, {"accuracy": step / 10, "loss": 1.0})
    checkpoint.wait(manager)
    manager.close()
    return path


def restore(path):
    directory = RunDirectory(path)
    manager = checkpoint.open_manager(directory.checkpoints, EXPERIMENT)
    try:
        return checkpoint.restore_latest(manager, ABSTRACT, directory.recognize)
    finally:
        manager.close()


def same(state, expected):
    key = lambda x: jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x  # noqa: E731
    pairs = zip(jax.tree.leaves(state), jax.tree.leaves(expected), strict=True)
    return all(np.array_equal(np.asarray(key(a)), np.asarray(key(b))) for a, b in pairs)


def flip(file, draw):
    data = bytearray(file.read_bytes())
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    file.write_bytes(data)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture
def run(whole, tmp_path):
    """A copy that can be damaged."""
    shutil.copytree(whole, tmp_path / "run")
    return tmp_path / "run"


def test_what_was_saved_is_restored(run):
    restored = restore(run)
    assert (restored.step, restored.damaged, restored.sealed) == (2, (), True) and same(restored.state, state_at(2))


@pytest.mark.parametrize("seed", range(int(os.environ.get("JAXCNN_BIT_FLIPS", "36")) // 12))
def test_a_flipped_bit_is_reported_or_changes_nothing(whole, tmp_path, seed):
    """In every file of the newest checkpoint in turn; JAXCNN_BIT_FLIPS=200 tries 200."""
    draw = random.Random(seed)
    chosen = sorted(path.relative_to(whole) for path in (whole / "checkpoints" / "2").rglob("*") if path.is_file())
    for number in range(12):
        run = tmp_path / str(number)
        shutil.copytree(whole, run)
        file = chosen[(seed * 12 + number) % len(chosen)]
        flip(run / file, draw)
        restored = restore(run)
        if restored.step == 1:
            assert "checkpoint 2 cannot be read (" in restored.damaged[0] and (run / "damaged" / "2").is_dir(), file
            assert same(restored.state, state_at(1))
        else:
            assert file.name in seal.UNSEALED and same(restored.state, state_at(2)), file


def test_a_file_that_is_missing_or_cut_is_reported(run):
    shutil.rmtree(run / "checkpoints" / "2" / "state")
    assert restore(run).step == 1


def test_a_seal_that_is_missing_is_reported(run):
    (run / "checkpoints" / "2" / seal.SEAL).unlink()
    restored = restore(run)
    assert restored.step == 1 and "seal.json is missing" in restored.damaged[0]


def test_a_checkpoint_under_another_number_is_reported(run):
    (run / "checkpoints" / "2").rename(run / "checkpoints" / "3")
    restored = restore(run)
    assert restored.step == 1 and "saved as checkpoint 2" in restored.damaged[0]


@pytest.mark.parametrize("seed", [0, 1])
def test_a_checkpoint_of_another_run_is_reported(run, tmp_path, seed):
    other = make_run(tmp_path / "other", seed)
    shutil.rmtree(run / "checkpoints" / "2")
    shutil.copytree(other / "checkpoints" / "2", run / "checkpoints" / "2")
    restored = restore(run)
    assert restored.step == 1
    assert ("seed is 1 there and 0" if seed else "metrics.jsonl is another") in restored.damaged[0]


def test_a_metrics_file_that_is_shorter_or_another_is_reported(run):
    lines = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (run / "metrics.jsonl").write_bytes(lines[0])
    restored = restore(run)
    assert restored.step == 1 and "metrics.jsonl is shorter" in restored.damaged[0]
    (run / "metrics.jsonl").write_bytes(b"".join(lines).replace(b"loss", b"lose"))
    with pytest.raises(UserError, match=r"no checkpoint can be read(.|\n)*metrics.jsonl is another"):
        restore(run)
    assert (run / "checkpoints" / "1").is_dir(), "none is moved if none is good"


def test_what_was_logged_after_the_save_does_not_matter_and_saving_goes_on(run):
    directory = RunDirectory(run)
    directory.log({"step": 3, "split": "train"})
    assert restore(run).step == 2
    directory.cut_metrics(directory.position()["metrics_size"])
    manager = checkpoint.open_manager(directory.checkpoints, EXPERIMENT)
    checkpoint.save(
        manager, 3, state_at(3), {"evaluated": True, **directory.position()}, {"accuracy": 0.0, "loss": 1.0}
    )
    checkpoint.wait(manager)
    assert manager.all_steps() == [2, 3] and manager.best_step() == 2
    manager.close()
    assert restore(run).step == 3


def test_a_checkpoint_from_before_there_were_seals_is_restored_and_said_to_have_none(run, caplog):
    for step in ("1", "2"):
        folder = run / "checkpoints" / step
        (folder / seal.SEAL).unlink()
        note = json.loads((folder / "note" / "metadata").read_text())
        metrics = note.pop("metrics")
        for name in ("step", "config", "metrics_digest"):
            del note[name]
        (folder / "note" / "metadata").write_text(json.dumps(note))
        (folder / "metrics").mkdir()
        (folder / "metrics" / "metrics").write_text(json.dumps(metrics))
    restored = restore(run)
    assert (restored.step, restored.sealed) == (2, False)
    (run / "checkpoints" / "2" / "metrics" / "metrics").write_text("{")  # a damaged score is none, and no traceback
    reader = checkpoint.open_reader(run / "checkpoints", EXPERIMENT)
    assert reader.best_step() == 1
    checkpoint.restore(reader, 2, ABSTRACT, RunDirectory(run).recognize)
    assert "saved without digests" in caplog.text


def test_reading_checks_too_and_falls_back_on_nothing(run):
    flip(run / "checkpoints" / "2" / "note" / "metadata", random.Random(1))
    reader = checkpoint.open_reader(run / "checkpoints", EXPERIMENT)
    assert reader.all_steps() == [1, 2]
    with pytest.raises(seal.Damaged, match="has changed"):
        checkpoint.restore(reader, 2, ABSTRACT, RunDirectory(run).recognize)
    assert (run / "checkpoints" / "2").is_dir()


AWKWARD = [
    "a[0]",
    "[!x]*?",
    "back\\slash",
    "not\udcffUTF8",
    "line\nbreak",
    "50% 'b\u00e4r' \U0001f426",
    "-dash",
    "{a,b}~",
]


@pytest.mark.parametrize("name", AWKWARD, ids=range(len(AWKWARD)))
def test_a_run_under_an_awkward_path_is_saved_and_read(tmp_path, name):
    """Orbax takes a path for a pattern, tensorstore takes it for UTF-8 and a backslash for a slash."""
    run = make_run(tmp_path / name / "run")
    assert same(restore(run).state, state_at(2))


def test_a_path_that_cannot_be_reached_is_refused(tmp_path, monkeypatch):
    folder = tmp_path / "a[0]"
    folder.mkdir()
    monkeypatch.setattr(files.pathlib.Path, "exists", lambda self: False)  # as if there were no /proc
    with pytest.raises(UserError, match="cannot be kept under this path"):
        files.reach(folder)


def test_what_is_committed_is_flushed_before_it_has_its_name(tmp_path, monkeypatch):
    flushed, original = [], os.fsync

    def note(descriptor):
        flushed.append(pathlib.Path(f"/proc/self/fd/{descriptor}").readlink())
        original(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    run = make_run(tmp_path / "run", steps=(1,))
    unfinished = {path.name for path in flushed if ".orbax-checkpoint-tmp" in str(path.parent)}
    assert {"metadata", "manifest.ocdbt", "_sharding"} <= unfinished
    assert {run / "metrics.jsonl", run / "checkpoints", run / "checkpoints" / "1" / "_CHECKPOINT_METADATA"} <= {
        *flushed
    }


@pytest.mark.parametrize(
    ("cause", "advice"),
    [
        ("OSError: [Errno 28] No space left on device", "make room"),
        ("OSError: [Errno 24] Too many open files: '/x'", "ulimit -n"),
        ("RuntimeError: can't start new thread", "ulimit -u"),
        ("OSError: [Errno 30] Read-only file system", "mend the disk"),
    ],
)
def test_the_advice_fits_the_cause(whole, cause, advice):
    reader = checkpoint.open_reader(whole / "checkpoints", EXPERIMENT)
    message = str(checkpoint._not_written(reader, cause))
    assert advice in message and "checkpoint 2 is intact" in message


def test_sizes_are_said_in_their_unit():
    assert [checkpoint.size(n) for n in (0, 812, 5 * 2**10, 3 * 2**20)] == [
        "0 bytes",
        "812 bytes",
        "5.0 KiB",
        "3.0 MiB",
    ]
