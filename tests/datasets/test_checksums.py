"""The recorded list of published files: git's hash, the counts, the ids of the copies."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from core.datasets.checksums import git_blob_sha1, read_records, write_metadata
from core.datasets.folder import load_table
from core.datasets.registry import SOURCES, resolve_dataset


def test_git_blob_sha1_is_gits(tmp_path):
    (tmp_path / "f").write_bytes(b"what is up, doc?")
    # The example of the Pro Git book, section "Git Objects".
    assert git_blob_sha1(tmp_path / "f") == "bd9dbf5aae1a3862dd1526723246b20206e5fc37"


def test_recorded_list_is_the_published_set():
    records = read_records(SOURCES / "darkcovidnet.csv")
    assert Counter(r.metadata["label"] for r in records) == {
        "Covid-19": 124,
        "No_findings": 500,
        "Pneumonia": 500,
    }
    assert len({r.image_id for r in records}) == len({r.git_blob for r in records}) == 1124
    assert len({r.metadata["patient_id"] for r in records}) == 764
    assert all(len(r.git_blob) == 40 and r.metadata["patient_id"] for r in records)
    assert all(r.url_path == f"X-Ray Image DataSet/{r.path}" for r in records)
    # Published, and left out on purpose (a caveat of the data set says so).
    assert "Covid-19/covid-19-pneumonia-14-PA.png" not in {r.path for r in records}


def test_a_download_has_the_ids_of_the_copies(tmp_path):
    copies = Path(os.environ.get("CXR_DATA", "data")) / "darkcovidnet"
    if not copies.is_dir():
        pytest.skip("darkcovidnet is not in CXR_DATA")
    records = read_records(SOURCES / "darkcovidnet.csv")
    root = tmp_path / "darkcovidnet"
    for record in records:
        (root / record.path).parent.mkdir(parents=True, exist_ok=True)
        (root / record.path).touch()
    write_metadata(root / "metadata.csv", records)
    published = load_table(*resolve_dataset(root, tmp_path))
    there = load_table(*resolve_dataset(copies, tmp_path))
    shared = ["image_id", "label", "patient_id", "license", "original_width"]
    assert published[shared].equals(there[shared])
    # Beside the copies may lie facts that fill blanks.
    known = published["view"] != ""
    assert known.any() and published["view"][known].equals(there["view"][known])
