"""The images and lung masks that an audit looks at, as far as they are here."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from core.config import cache_root
from core.console import progress
from core.datasets.folder import find_image
from core.evaluation.audit.blackout import shrink_mask
from core.imageio.decode import ImageError, read_image
from core.imageio.pixel_cache import PixelCache, build_pixel_cache
from core.inference.ensemble import AuditError
from core.runs.run import Run

# Copies and baselines need no more; models may want more (or less).
MIN_SMALL_PX = 64


@dataclass
class RunImages:
    """The run's images as far as they can be read: one row a readable image.

    manifest: rows of the run's manifest, index 0..n-1; small uint8 (n, s, s) of all of them; test:
    input size -> uint8 (m, s, s) of the test rows; excluded: [{image_id, reason}]; changed_n: how
    many are other files than those the run was trained on.
    """

    manifest: pd.DataFrame
    small: np.ndarray
    test: dict[int, np.ndarray]
    excluded: list[dict] = field(default_factory=list)
    changed_n: int = 0

    @property
    def test_rows(self) -> pd.DataFrame:
        return self.manifest[self.manifest["split"] == "test"].reset_index(drop=True)


def find_images(manifest: pd.DataFrame, root: Path) -> dict[str, Path | None]:
    """image_id -> its file below root or None; empty where no test image is there."""
    found = {image_id: find_image(root, image_id) for image_id in manifest["image_id"]}
    test = manifest.loc[manifest["split"] == "test", "image_id"]
    return found if any(found[image_id] for image_id in test) else {}


def read_images(
    run: Run,
    manifest: pd.DataFrame,
    root: Path,
    found: dict[str, Path | None],
    sizes_px: list[int],
) -> RunImages:
    """All images small and the test images at every input size. Raises ImageError."""
    paths = {i: file.relative_to(root).as_posix() for i, file in found.items() if file is not None}
    here = manifest[manifest["image_id"].isin(paths)]
    here = here.assign(path=[paths[image_id] for image_id in here["image_id"]])
    excluded = [
        {"image_id": image_id, "reason": "The image is not in the folder."}
        for image_id, file in found.items()
        if file is None
    ]
    small_px = max(MIN_SMALL_PX, min(sizes_px))
    small = _decode(here, root, [small_px])
    reasons = dict(zip(small.skipped["path"], small.skipped["reason"], strict=True))
    excluded += [
        {"image_id": row.image_id, "reason": reasons[row.path]}
        for row in here.itertuples()
        if row.path in reasons
    ]
    rows = small.table
    if not (rows["split"] == "test").any():
        raise ImageError(
            f"None of the {int((manifest['split'] == 'test').sum())} test images of run "
            f"{run.name} can be used "
            f"(first: {excluded[0]['image_id']}: {excluded[0]['reason']})."
        )
    large = _decode(rows[rows["split"] == "test"], root, sizes_px)
    changed = rows["sha256"].to_numpy() != (
        manifest.set_index("image_id").loc[rows["image_id"], "sha256"].to_numpy()
    )
    return RunImages(
        rows.drop(columns="path").merge(manifest[["image_id", "path"]], on="image_id"),
        small.pixels(small_px),
        {size: large.pixels(size) for size in sizes_px},
        excluded,
        int(changed.sum()),
    )


def _decode(rows: pd.DataFrame, root: Path, sizes_px: list[int]) -> PixelCache:
    with progress(len(rows), "Decoding images", "image") as bar:
        return build_pixel_cache(
            rows,
            root,
            cache_root() / "pixels",
            sizes_px,
            progress=lambda done, _total: bar.update(done - bar.n),
        )


def find_masks(folder: Path, manifest: pd.DataFrame) -> dict[str, Path]:
    """image_id -> mask file, of all that the folder holds. Raises AuditError."""
    if not folder.is_dir():
        raise AuditError(f"--masks names no folder. Received: {folder}.")
    files = {image_id: find_image(folder, image_id) for image_id in manifest["image_id"]}
    found = {image_id: file for image_id, file in files.items() if file is not None}
    test = manifest.loc[manifest["split"] == "test", "image_id"]
    if not test.isin(found).any():
        raise AuditError(
            f"{folder} holds no mask of any of the {len(test)} test images: a mask has its image's "
            f"path and name, such as {test.iloc[0]}.png."
        )
    return found


def read_masks(files: dict[str, Path], image_ids: pd.Series, size_px: int) -> np.ndarray:
    """bool (n, size_px, size_px), True where the lungs are. Raises AuditError."""
    masks = np.empty((len(image_ids), size_px, size_px), dtype=bool)
    for i, image_id in enumerate(image_ids):
        try:
            masks[i] = shrink_mask(read_image(files[image_id]).pixels, size_px)
        except ImageError as error:
            raise AuditError(f"The mask of {image_id} cannot be used: {error}") from error
    return masks
