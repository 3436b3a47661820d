"""The Kaggle way, with a stand-in for kagglehub: the layout, and a sentence where it fails."""

from __future__ import annotations

import builtins
import sys
import types

import pytest

from core.datasets.fetch import fetch_dataset
from core.datasets.registry import DatasetError


@pytest.fixture
def kagglehub(monkeypatch, tmp_path):
    """A stand-in kagglehub whose download is a folder of the test's."""
    download = tmp_path / "cache" / "xray_dataset_covid19"
    for split in ("train", "test"):
        (download / split / "NORMAL").mkdir(parents=True)
        (download / split / "NORMAL" / "a.jpeg").write_bytes(split.encode())
    hub = types.ModuleType("kagglehub")
    hub.exceptions = types.SimpleNamespace(
        **{
            name: type(name, (Exception,), {})
            for name in (
                "UnauthenticatedError",
                "CredentialError",
                "KaggleApiHTTPError",
                "BackendError",
            )
        }
    )

    def dataset_download(handle):
        assert handle == "khoongweihao/covid19-xray-dataset-train-test-sets"
        print("Downloading ...")
        return str(tmp_path / "cache")

    hub.dataset_download = dataset_download
    monkeypatch.setitem(sys.modules, "kagglehub", hub)
    return hub


def test_kaggle_is_laid_out_as_train_and_test(kagglehub, tmp_path, capsys):
    root = fetch_dataset("kaggle-covid19-xray", tmp_path / "data")
    files = {p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()}
    assert files == {"train/NORMAL/a.jpeg", "test/NORMAL/a.jpeg"}
    assert (root / "test/NORMAL/a.jpeg").read_bytes() == b"test"
    assert capsys.readouterr().out == ""


def test_kaggle_refusal_and_lost_network_are_sentences(kagglehub, tmp_path):
    def fail(error):
        def dataset_download(handle):
            raise error

        kagglehub.dataset_download = dataset_download

    fail(kagglehub.exceptions.UnauthenticatedError("no"))
    with pytest.raises(DatasetError, match=r"Kaggle refused .*sign in"):
        fetch_dataset("kaggle-covid19-xray", tmp_path / "data")
    fail(ConnectionError("no route"))
    with pytest.raises(DatasetError, match=r"cannot be downloaded .*make demo"):
        fetch_dataset("kaggle-covid19-xray", tmp_path / "data")


def test_kagglehub_not_installed_is_a_sentence(monkeypatch, tmp_path):
    real_import = builtins.__import__

    def no_kagglehub(name, *args, **kwargs):
        if name.startswith("kagglehub"):
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_kagglehub)
    with pytest.raises(DatasetError, match="pip install kagglehub"):
        fetch_dataset("kaggle-covid19-xray", tmp_path)
