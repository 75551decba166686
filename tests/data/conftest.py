import pytest

from tests.data.voc_folder import VOC


@pytest.fixture
def voc(tmp_path):
    return VOC(tmp_path / "pets")
