"""Fetch the Kaggle data set through kagglehub, laid out as `train/` and `test/`."""

from __future__ import annotations

import contextlib
import shutil
import sys
from pathlib import Path

from core.datasets.registry import Dataset, DatasetError


def fetch_kaggle(dataset: Dataset, data_root: Path) -> Path:
    """Fetch the set into `data_root/NAME`, whole or not at all; DatasetError says what to do."""
    name, handle = dataset.name, dataset.kaggle
    final = data_root / name
    if final.is_dir():
        return final
    try:
        import kagglehub
        from kagglehub import exceptions
        from requests import RequestException
    except ImportError:
        raise DatasetError(
            f"Data set {name} comes from Kaggle: install kagglehub (`pip install kagglehub`), or "
            f"put its train/ and test/ folders in {final}."
        ) from None
    refused = (exceptions.UnauthenticatedError, exceptions.CredentialError)
    try:
        # stdout may have to be one JSON document, and kagglehub prints its progress there.
        with contextlib.redirect_stdout(sys.stderr):
            downloaded = Path(kagglehub.dataset_download(handle))
    except (*refused, exceptions.KaggleApiHTTPError) as error:
        status = getattr(getattr(error, "response", None), "status_code", "no sign-in")
        raise DatasetError(
            f"Kaggle refused {handle} ({status}): sign in with a token "
            "(https://www.kaggle.com/settings, KAGGLE_API_TOKEN), or put its train/ and test/ "
            f"folders in {final}."
        ) from None
    except (RequestException, exceptions.BackendError, OSError) as error:
        raise DatasetError(
            f"{handle} cannot be downloaded from Kaggle ({type(error).__name__}): check the "
            f"network, put its train/ and test/ folders in {final}, or run `make demo`, which "
            "needs no data."
        ) from None
    inner = next(
        (p.parent for p in sorted(downloaded.rglob("train")) if (p.parent / "test").is_dir()), None
    )
    if inner is None:
        raise DatasetError(
            f"{handle} was downloaded to {downloaded}, but has no train/ and test/ folders "
            f"any more: put the images in {final}/train and {final}/test by hand."
        )
    try:
        return _copy_splits(inner, final)
    except OSError as error:
        raise DatasetError(
            f"Cannot write to {final} ({error.strerror or error}): make room or set CXR_DATA to a "
            "folder that can be written."
        ) from error


def _copy_splits(source: Path, final: Path) -> Path:
    part = final.with_name(f"{final.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    for split in ("train", "val", "test"):
        if (source / split).is_dir():
            shutil.copytree(source / split, part / split)
    part.rename(final)
    return final
