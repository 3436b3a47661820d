"""Ask a run's models about its own test images anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from core.console import progress
from core.evaluation.scoring import predictions_table
from core.imageio.decode import ImageError, read_image, resize_square
from core.inference.ensemble import ModelGroup
from core.runs.run import Run


def predict_test_images(
    run: Run, model_group: ModelGroup, test: pd.DataFrame, files: dict[str, Path | None]
) -> tuple[dict[str, pd.DataFrame], list[dict[str, str]]]:
    """Each model's predictions of the images that can be read, and the others with the reason.

    Raises ImageError where none can be read.
    """
    # Decoded once and kept only as small as the models want them.
    pixels = {size: np.empty((len(test), size, size), np.uint8) for size in model_group.sizes_px}
    kept: list[str] = []
    excluded: list[dict[str, str]] = []
    with progress(len(test), "Reading images", "image") as bar:
        for image_id in test["image_id"]:
            bar.update(1)
            file = files[image_id]
            try:
                if file is None:
                    raise ImageError("The image is not in the folder.")
                grey = read_image(file).pixels
            except ImageError as error:
                excluded.append({"image_id": image_id, "reason": str(error)})
                continue
            for size in pixels:
                pixels[size][len(kept)] = resize_square(grey, size)
            kept.append(image_id)
    if not kept:
        raise ImageError(
            f"None of the {len(test)} test images of run {run.name} can be used "
            f"(first: {excluded[0]['image_id']}: {excluded[0]['reason']})."
        )
    rows = test[test["image_id"].isin(kept)].assign(fold="")
    answers = model_group.predict({size: images[: len(kept)] for size, images in pixels.items()})
    names = [name for name in run.models if name in answers]
    tables = {name: predictions_table(rows, answers[name], run.class_names) for name in names}
    return tables, excluded
