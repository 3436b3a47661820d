"""Images that come in at the Predict page: what is kept of them, and for how long.

How large a file may be: imageio/picture.py, imageio/zip_archive.py and .streamlit/config.toml.

Kept is one image, decoded, in the memory of its session. The file's bytes go as soon as it has
been read, Streamlit's own copy of them too.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np
import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from core.imageio.decode import Decoded, ImageError

PICTURE, UPLOADER = "predict_picture", "predict_upload"
_ROUND, _WAITING, _PROBLEM = "predict_upload_round", "predict_waiting", "predict_problem"
# What Streamlit holds a session for after its browser tab is gone.
RETENTION_TEXT = (
    "The file is dropped once it is read. Kept are its pixels, in this server's memory, until you "
    "press Clear, take another picture, or a few minutes after you close this tab."
)


@dataclass(frozen=True)
class Upload:
    """What the page keeps of one picture: never the file's bytes.

    sha256 of the grey pixels and their shape; label: the true class, where it is known;
    file_sha256: of the file as it came, "" where there was none.
    """

    name: str
    decoded: Decoded
    sha256: str
    label: str | None = None
    file_sha256: str = ""

    @property
    def key(self) -> str:
        """What an answer depends on: the pixels and what the file said beside them."""
        own = self.decoded
        beside = repr((self.sha256, own.synthetic, own.format, own.mode, own.colourfulness))
        return f"{beside}{sorted(own.facts.items())}"


def make_upload(
    name: str,
    decoded: Decoded,
    label: str | None = None,
    *,
    synthetic: bool = False,
    file_sha256: str = "",
) -> Upload:
    """A decoded picture as the page keeps it; synthetic: known to be drawn, whatever it says."""
    if synthetic and not decoded.synthetic:
        decoded = replace(decoded, synthetic=True)
    return Upload(name, decoded, pixels_sha256(decoded.pixels), label, file_sha256)


def pixels_sha256(pixels: np.ndarray) -> str:
    """SHA-256 of grey uint8 (height, width), the shape with it."""
    digest = hashlib.sha256(f"{pixels.shape[0]}x{pixels.shape[1]}:".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


# ------------------------------------------------------------------------------ one session


def current() -> Upload | None:
    """The picture on the page."""
    return st.session_state.get(PICTURE)


def put(upload: Upload | None) -> None:
    """Put another picture on the page, or none; it outlives a visit to another page."""
    # What is merely overwritten, Streamlit holds until the page is drawn once more.
    st.session_state.pop(PICTURE, None)
    if upload is not None:
        st.session_state[PICTURE] = upload


def uploader_key() -> str:
    """The uploader's key, another one after each drop: so the widget lets go of its files."""
    return f"{UPLOADER}_{st.session_state.get(_ROUND, 0)}"


def take_files() -> None:
    """Callback of the uploader: its files wait to be read, and nothing else holds them."""
    files = st.session_state.get(uploader_key()) or []
    st.session_state[_ROUND] = st.session_state.get(_ROUND, 0) + 1
    if files:
        st.session_state[_WAITING] = [(file.name, file.getvalue()) for file in files]
    for file in files:
        _forget_file(file.file_id)


def waiting_files() -> list[tuple[str, bytes]]:
    """Name and bytes of the files that were dropped and not yet read; each is given once."""
    return st.session_state.pop(_WAITING, [])


def any_waiting() -> bool:
    """Whether files were dropped that are not yet read."""
    return bool(st.session_state.get(_WAITING))


def read_upload(name: str, data: bytes) -> Upload:
    """Decode one dropped file, in a process of its own. Raises ImageError."""
    from core.imageio.sandbox import decode_safely

    return make_upload(name, decode_safely(data), file_sha256=hashlib.sha256(data).hexdigest())


def say_problem(name: str, error: ImageError) -> None:
    """Remember one sentence on a file that could not be used, for the next drawing."""
    st.session_state[_PROBLEM] = f"{name}: {error}"


def take_problem() -> str:
    """That sentence, once; "" where there is none."""
    return st.session_state.pop(_PROBLEM, "")


def _forget_file(file_id: str) -> None:
    """Streamlit keeps an uploaded file as long as its session: take it out, as st.chat_input does
    with its own."""
    context = get_script_run_ctx()
    if context is None:
        return
    remove = getattr(context.uploaded_file_mgr, "remove_file", None)
    if remove:
        remove(session_id=context.session_id, file_id=file_id)
