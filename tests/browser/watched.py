"""The dashboard; on SIGUSR1 it writes what it holds of uploads to the file that WATCHED names."""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path

from dashboard.__main__ import main

# Streamlit's copy of an uploaded file, and what this program makes of one.
KINDS = ("UploadedFileRec", "UploadedFile", "Upload", "Decoded", "PictureAnswer", "Row", "Batch")


def write_held(*_: object) -> None:
    """{"stored": files in Streamlit's manager, kind: objects of it alive}; atomic."""
    from streamlit import runtime

    gc.collect()
    alive = Counter(type(one).__name__ for one in gc.get_objects())
    storage = runtime.get_instance()._uploaded_file_mgr.file_storage
    held = {"stored": sum(map(len, storage.values())), **{kind: alive[kind] for kind in KINDS}}
    file = Path(os.environ["WATCHED"])
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(held))
    partial.replace(file)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, write_held)
    sys.exit(main())
