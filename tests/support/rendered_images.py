"""The pictures that a page shows: AppTest gives their addresses, this the pixels."""

from __future__ import annotations

import io
from pathlib import PurePosixPath

import numpy as np
import pytest
from PIL import Image
from streamlit.runtime.memory_media_file_storage import MemoryMediaFileStorage
from streamlit.testing.v1 import AppTest


def record_media(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """File id -> bytes of all that pages hand to the browser from now on."""
    media: dict[str, bytes] = {}
    load = MemoryMediaFileStorage.load_and_get_id

    def recording(self, path_or_data, *args, **kwargs):
        file_id = load(self, path_or_data, *args, **kwargs)
        media[file_id] = path_or_data
        return file_id

    monkeypatch.setattr(MemoryMediaFileStorage, "load_and_get_id", recording)
    return media


def shown_pictures(app: AppTest, media: dict[str, bytes]) -> list[np.ndarray]:
    """int (height, width[, 3]) of each image on the page; they are JPEG, so nearly exact."""
    urls = [picture.url for image in app.image for picture in image.proto.imgs]
    pictures = [Image.open(io.BytesIO(media[PurePosixPath(url).stem])) for url in urls]
    return [np.asarray(picture).astype(int) for picture in pictures]


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """Mean difference of two pictures in grey levels."""
    return float(np.abs(a.astype(int) - b.astype(int)).mean())
