"""The code of a run's own: found beside its file, kept with it, refused when changed, and run only if it is trusted."""

import json
import pathlib
import pickle
import shutil
import subprocess
import sys

import cloudpickle
import numpy as np
import pytest

from jaxcnn import config, experiment_file, trust
from jaxcnn.__main__ import main as jaxcnn
from jaxcnn.errors import UserError
from jaxcnn.flags import parse
from jaxcnn.runs import restore as saved
from jaxcnn.runs.run_directory import RunDirectory
from jaxcnn.runs.start import start_run
from tests.tiny_runs import TINY

FILE = '''
"""A file with a module beside it."""
import dataclasses
from mynet import Invert
from tests.experiments.tiny import experiment as base

{more}

def experiment():
    from later import LATE
    made = base()
    return dataclasses.replace(made, data=dataclasses.replace(made.data, augment=(Invert(),), preprocess=({own})))
'''
MODULE = '''
"""Transforms of mine."""
import dataclasses

@dataclasses.dataclass(frozen=True)
class Invert:
    top: int = 255

    def __call__(self, image, rng):
        return {factor} * self.top - image
'''
OWN = "@dataclasses.dataclass(frozen=True)\nclass Own:\n    def __call__(self, image, rng):\n        return image\n"
DATASET = {"name": "x", "version": "1", "splits": {"train": 1}, "label_hash": "h", "classes": ["a", "b", "c", "d"]}


@pytest.fixture(autouse=True)
def nobody_trusts_anything(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(trust, "_here", set())


def write(folder, factor=1, more=OWN, own="Own(),"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mynet.py").write_text(MODULE.format(factor=factor))
    (folder / "later.py").write_text("LATE = 1\n")
    (folder / "unused.py").write_text("raise SystemExit\n")
    (folder / "my.py").write_text(FILE.format(more=more, own=own))
    return folder / "my.py"


def begin(file, run, **options):
    """Starts or goes on with the run of a file, without training."""
    experiment = parse(file, []).experiment
    with start_run(run, config.encode(experiment), file, DATASET, **options) as directory:
        return directory


def top_of(run):
    """What the run's own transform makes of a black image."""
    return int(saved.load_experiment(RunDirectory(run)).data.augment[0](np.zeros((), np.int32), None))


def test_a_module_beside_the_file_is_found_from_anywhere_and_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file, run = write(tmp_path / "lab"), tmp_path / "run"
    begin(file, run)
    assert sorted(str(path.relative_to(run)) for path in run.rglob("*.py")) == [
        *("code/later.py", "code/mynet.py", "experiment.py")
    ]
    shutil.rmtree(tmp_path / "lab")
    assert top_of(run) == 255


def test_what_is_imported_only_in_functions_that_were_not_called_is_kept_too(tmp_path):
    file = write(tmp_path / "lab", more=OWN + "\n\ndef other():\n    from pack.inner import X\n")
    (tmp_path / "lab" / "pack").mkdir()
    (tmp_path / "lab" / "pack" / "__init__.py").write_text("")
    (tmp_path / "lab" / "pack" / "inner.py").write_text("from .deep import X\nimport os, numpy\n")
    (tmp_path / "lab" / "pack" / "deep.py").write_text("X = 1\n")
    begin(file, tmp_path / "run")
    found = {str(path.relative_to(tmp_path / "run" / "code")) for path in (tmp_path / "run" / "code").rglob("*.py")}
    assert found == {"later.py", "mynet.py", "pack/__init__.py", "pack/inner.py", "pack/deep.py"}


def test_a_module_of_the_current_folder_is_told_to_be_neither_kept_nor_compared(tmp_path, monkeypatch, caplog):
    """But not one beside the file, one that is installed, or one of Python's."""
    file = write(tmp_path / "lab", more="import json, mine.deep, numpy\n" + OWN)
    (tmp_path / "here/mine").mkdir(parents=True)
    for name in ("mine/__init__.py", "mine/deep.py", "json.py", "numpy.py", "mynet.py"):
        (tmp_path / "here" / name).write_text("")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.syspath_prepend(str(tmp_path / "here"))
    begin(file, tmp_path / "run")
    told = [line for line in caplog.messages if "from the current folder" in line]
    assert [line.split(" from the current")[0] for line in told] == [f"{file} imports mine"]
    assert not (tmp_path / "run/code/mine").exists()


def test_worker_processes_get_these_classes_whole(tmp_path):
    transform = parse(write(tmp_path / "lab"), []).experiment.data.augment[0]
    text = "import pickle, sys; print(pickle.load(sys.stdin.buffer)(0, None))"
    done = subprocess.run([sys.executable, "-c", text], input=cloudpickle.dumps(transform), capture_output=True)
    assert done.stdout.split() == [b"255"], done.stderr.decode()
    assert pickle.loads(cloudpickle.dumps(transform))(0, None) == 255


def test_two_runs_with_modules_of_one_name_do_not_mix(tmp_path):
    for factor in (1, 3):
        begin(write(tmp_path / f"lab{factor}", factor), tmp_path / f"run{factor}")
    assert [top_of(tmp_path / f"run{factor}") for factor in (1, 3, 1)] == [255, 765, 255]


def test_the_file_that_is_launched_keeps_its_modules_while_another_run_is_read(tmp_path):
    begin(write(tmp_path / "lab3", 3), tmp_path / "run3")
    experiment = parse(write(tmp_path / "lab1"), []).experiment
    assert top_of(tmp_path / "run3") == 765
    assert sys.modules["mynet"].Invert is type(experiment.data.augment[0])
    assert sys.modules[experiment_file.MODULE].__file__ == str(tmp_path / "lab1" / "my.py")


def test_a_file_named_as_an_installed_module_does_not_take_its_place(tmp_path):
    for name in ("colorsys", "optax", "mynet"):
        (tmp_path / f"{name}.py").write_text("")
    folder = experiment_file.Folder(tmp_path, launched=True)
    assert [folder.find(name) is not None for name in ("colorsys", "optax", "mynet", "os", "missing")] == [
        *(False, False, True, False, False)
    ]


def test_changed_code_is_refused_with_the_lines_and_the_way_to_go_on(tmp_path):
    file, run = write(tmp_path / "lab"), tmp_path / "run"
    begin(file, run)
    begin(file, run)
    write(tmp_path / "lab", factor=-3)
    with pytest.raises(UserError, match=r"other code:\n  code/mynet.py:(.|\n)*\+ +return -3 \* (.|\n)*--accept-code"):
        begin(file, run)
    assert top_of(run) == 255
    begin(file, run, accept_code=True)
    assert top_of(run) == -765
    begin(file, run)
    environment = RunDirectory(run).environment()
    assert len({json.dumps(start["code"]) for start in environment["resumed"]}) == 2, "each start says what it ran"


def test_changed_code_of_the_file_itself_is_refused(tmp_path):
    """The report: a logit factor of 1 in the file became -3."""
    file, run = write(tmp_path / "lab"), tmp_path / "run"
    begin(file, run)
    file.write_text(file.read_text().replace("return image", "return -3 * image"))
    with pytest.raises(UserError, match=r"experiment.py:(.|\n)*- +return image\n +\+ +return -3 \* image"):
        begin(file, run)


def test_comments_layout_and_docstrings_may_change(tmp_path):
    file, run = write(tmp_path / "lab"), tmp_path / "run"
    begin(file, run)
    for path in (file, file.with_name("mynet.py")):
        path.write_text(
            "# new\n" + path.read_text().replace("A file", "The file").replace("of mine", "of ours") + "\n\n"
        )
    begin(file, run)
    assert "# new" in (run / "experiment.py").read_text() and top_of(run) == 255


def test_code_that_config_json_does_not_name_may_change_and_that_is_said(tmp_path, caplog):
    file, run = tmp_path / "plain.py", tmp_path / "run"
    text = "from tests.experiments.tiny import experiment\nX = {}\n"
    file.write_text(text.format(1))
    begin(file, run)
    file.write_text(text.format(2))
    begin(file, run)
    begin(file, run)
    assert caplog.text.count("experiment.py changed since the run began") == 2
    assert "X = 1" in (run / "experiment.py").read_text(), "it is kept as it was"


def test_a_damaged_copy_is_mended_by_the_same_file_and_refused_with_another(tmp_path):
    file, run = write(tmp_path / "lab"), tmp_path / "run"
    begin(file, run)
    (run / "experiment.py").write_text("")  # as after a crash of the machine
    (run / "code" / "mynet.py").unlink()
    begin(file, run)
    assert top_of(run) == 255
    (run / "experiment.py").write_text("")
    write(tmp_path / "lab", more=OWN + "Y = 1\n")
    with pytest.raises(UserError, match=r"experiment.py: the copy in the run is damaged"):
        begin(file, run)


def test_a_run_from_elsewhere_runs_its_code_only_if_it_is_trusted(tmp_path, monkeypatch):
    marker = tmp_path / "ran"
    more = OWN + f"import pathlib\npathlib.Path({str(marker)!r}).touch()\n"
    begin(write(tmp_path / "lab", more=more), tmp_path / "run")
    marker.unlink()
    assert top_of(tmp_path / "run") == 255 and marker.exists(), "it was made here"
    marker.unlink()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another user"))
    monkeypatch.setattr(trust, "_here", set())
    with pytest.raises(UserError, match=r"you did not start here; look at .*experiment.py.*--trust"):
        saved.load_experiment(RunDirectory(tmp_path / "run"))
    for command in (["evaluate"], ["report"], ["predict", "x.png"], ["explain", "--method", "filters"]):
        assert jaxcnn([command[0], str(tmp_path / "run"), *command[1:]]) == 1
    assert not marker.exists()
    saved.trust_run(tmp_path / "run")
    assert top_of(tmp_path / "run") == 255
    mynet = tmp_path / "run" / "code" / "mynet.py"
    mynet.write_text(mynet.read_text() + "\n")
    with pytest.raises(UserError, match="--trust"):
        saved.load_experiment(RunDirectory(tmp_path / "run"))


def test_trust_is_given_before_a_preparation_is_taken_over(tmp_path, monkeypatch):
    begin(write(tmp_path / "lab"), tmp_path / "run")
    monkeypatch.setattr(trust, "_here", set())
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another user"))
    flags = ["--init-from.run", str(tmp_path / "run"), "--init-from.preparation"]
    with pytest.raises(UserError, match="give --trust"):
        parse(TINY, flags)
    (own,) = parse(TINY, [*flags, "--trust"]).experiment.data.preprocess
    assert type(own).__name__ == "Own"


def test_a_link_among_the_code_of_a_run_is_refused_before_anything_runs(tmp_path):
    """Python prefers a package to a module and follows links, so it would run what the digest knows nothing of."""
    marker, run = tmp_path / "ran", tmp_path / "run"
    begin(write(tmp_path / "lab"), run)
    (run / "explain" / "pic").mkdir(parents=True)
    (run / "explain" / "pic" / "__init__.py").write_text(f"import pathlib\npathlib.Path({str(marker)!r}).touch()\n")
    (run / "code" / "mynet").symlink_to("../explain/pic")
    with pytest.raises(UserError, match="code/mynet is a link"):
        saved.load_experiment(RunDirectory(run))
    assert jaxcnn(["evaluate", str(run)]) == 1 and not marker.exists()
    (run / "code" / "mynet").unlink()
    (run / "explain" / "pic").rename(run / "code" / "mynet")  # no link, and then the digest is another
    with pytest.raises(UserError, match="--trust"):
        saved.load_experiment(RunDirectory(run))
    assert not marker.exists()


def test_a_home_that_cannot_be_written_stops_nothing(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    begin(write(tmp_path / "lab"), tmp_path / "run")
    assert "cannot be written: reading this run later needs --trust" in caplog.text
    assert top_of(tmp_path / "run") == 255, "in this process"
    monkeypatch.setattr(trust, "_here", set())
    with pytest.raises(UserError, match="--trust"):
        saved.load_experiment(RunDirectory(tmp_path / "run"))
    saved.trust_run(tmp_path / "run")
    assert top_of(tmp_path / "run") == 255


@pytest.mark.parametrize(
    "name",
    [
        *("os:system", "builtins:exec", "subprocess:Popen", "jaxcnn.tasks.losses:Loss", "jaxcnn.launch:main"),
        *("jaxcnn.config:dataclasses.dataclass", "jaxcnn.runs.restore:Mesh", "jaxcnn.experiment:Experiment.model"),
        *("jaxcnn.runs.restore:TrainState", "flax.linen:Module.apply", "jaxcnn:os", "flax.linen.linear:jax", ":", "x"),
        *("jaxcnn_experiment_file:Net", "jaxcnn.x..y:Z", "jaxcnn.data.folder:os.system", "pathlib:Path"),
    ],
)
def test_a_hostile_config_runs_nothing(name, tmp_path, monkeypatch):
    encoded = config.encode(parse(pathlib.Path("experiments/lenet_digits.py"), []).experiment)
    encoded["data"]["source"] = {"class": name, "command": f"touch {tmp_path / 'ran'}"}
    (tmp_path / "config.json").write_text(json.dumps(encoded))
    (tmp_path / "experiment.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    if config.foreign(encoded):
        monkeypatch.setattr("importlib.import_module", lambda module: pytest.fail(f"imports {module}"))
    with pytest.raises(UserError):
        saved.load_experiment(RunDirectory(tmp_path))
    assert not (tmp_path / "ran").exists()


def test_layers_of_flax_and_every_class_of_ours_are_built():
    encoded = {"class": "flax.linen.linear:Dense", "features": 3}
    assert config.decode(encoded).features == 3


def test_a_class_that_json_could_not_find_again_is_refused_at_the_start(tmp_path):
    text = OWN.replace("\n", "\n    ")
    file = tmp_path / "inside.py"
    file.write_text(
        "import dataclasses\nfrom tests.experiments.tiny import experiment as base\n\ndef experiment():\n    "
        f"{text}\n    made = base()\n"
        "    return dataclasses.replace(made, data=dataclasses.replace(made.data, augment=(Own(),)))\n"
    )
    with pytest.raises(UserError, match=r"data.augment.0: Own is defined in a function"):
        config.encode(parse(file, []).experiment)
