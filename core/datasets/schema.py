"""A manifest: which image is in train, val or test, in which group and fold."""

from __future__ import annotations

from core.errors import UserError

MANIFEST_COLUMNS = [
    "image_id",
    "path",
    "label",
    "original_label",
    "patient_id",
    "group_id",
    "split",
    "fold",
    "sha256",
    "width",
    "height",
    "format",
]
# After these, where a run was trained on several data sets: where an image comes from.
SOURCE_COLUMN = "source"


class ManifestError(UserError):
    """A table that cannot be split; the message is one sentence a person can act on."""
