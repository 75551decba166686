"""What a user or a data set names is read if it is a regular file; nothing waits for a pipe or reads a device."""

import os
import signal
import socket

import pytest

from jaxcnn.data.folder import Folder
from jaxcnn.data.survey import check
from jaxcnn.errors import UserError
from jaxcnn.files import read_bytes
from jaxcnn.models.pretrained import from_torch
from jaxcnn.runs.import_weights import class_names


@pytest.fixture(autouse=True)
def in_time():
    """A pipe that is opened is waited for: the alarm ends the test, and not the suite."""

    def late(number, frame):
        raise AssertionError("it waits for what never comes")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def strange(tmp_path, monkeypatch):
    """{path: what it is} of what is not a regular file."""
    os.mkfifo(tmp_path / "pipe.png")
    monkeypatch.chdir(tmp_path)  # the path of a socket has at most 107 bytes
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "nowhere.png").symlink_to(tmp_path / "none")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    return {
        tmp_path / "pipe.png": "a named pipe",
        tmp_path / "socket.png": "a socket",
        tmp_path / "loop.png": "a link that leads back to itself",
        tmp_path / "folder.png": "a folder",
        tmp_path / "nowhere.png": "No such file",
        tmp_path / "zero.png": "a device",
    }


def test_only_regular_files_are_read(strange, tmp_path):
    for path, kind in strange.items():
        with pytest.raises(OSError, match=kind):
            read_bytes(path)
    (tmp_path / "x").write_bytes(b"12345")
    (tmp_path / "link").symlink_to(tmp_path / "x")
    assert read_bytes(tmp_path / "link") == read_bytes(tmp_path / "x", largest=5) == b"12345"
    with pytest.raises(OSError, match="more than"):
        read_bytes(tmp_path / "x", largest=4)


def test_weights_and_class_names_are_regular_files(strange):
    for path, kind in strange.items():
        with pytest.raises(UserError, match=f"(?i){kind}"):
            from_torch("vgg11", path)
        with pytest.raises(UserError, match=f"class names cannot be read: .*{kind}"):
            class_names(path, "vgg16")


def test_a_folder_reports_them_as_broken_examples(strange, tmp_path):
    cat = tmp_path / "pets" / "train" / "cat"
    cat.mkdir(parents=True)
    for path in strange:
        if path.name != "folder.png":
            path.rename(cat / path.name)
    (cat / "loop.png").unlink()
    (cat / "loop.png").symlink_to("loop.png")
    broken = check(Folder(str(tmp_path / "pets")).open("train"))
    assert {os.path.basename(b.where): b.cause.split(",")[0].removeprefix("it is ") for b in broken} == {
        "pipe.png": "a named pipe (FIFO)",
        "socket.png": "a socket",
        "loop.png": "a link that leads back to itself",
        "nowhere.png": "[Errno 2] No such file or directory",
        "zero.png": "a device",
    }


def test_a_class_folder_that_is_a_circle_of_links_is_refused(tmp_path):
    train = tmp_path / "train"
    (train / "cat").mkdir(parents=True)
    (train / "dog").symlink_to(train / "dog")
    with pytest.raises(UserError, match="dog is a link that leads back to itself"):
        Folder(str(tmp_path)).open("train")
