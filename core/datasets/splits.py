"""Table of images -> groups that stay together, splits, folds.

The split is a function of the rows (as a set), the seed and the options; the order of the rows
plays no part.
"""

from __future__ import annotations

import hashlib
import warnings

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from core.datasets.schema import MANIFEST_COLUMNS, SOURCE_COLUMN, ManifestError

TEST_FOLDS = 5
VAL_FRACTION = 0.10


def build_manifest(
    table: pd.DataFrame,
    *,
    seed: int,
    split: str = "group",
    folds: int = 0,
    near_duplicates: pd.DataFrame | None = None,
    sources: bool = False,
) -> pd.DataFrame:
    """Groups, splits and folds for the images of `table`.

    table: one row an image: image_id, path, label, original_label, patient_id, split_given ("",
    train, val or test), sha256, width, height, format (what is absent comes out empty).
    near_duplicates: what `find_duplicates` found (image_id_a, image_id_b); both images of a pair
    go into one group, and so do files with the same sha256. sources: keep the column `source`.

    Returns MANIFEST_COLUMNS (and `source`) in the order of the table's rows. `group_id` is the
    first patient_id of the images that must stay together. Test is fold 0 of five stratified
    group folds (~20%), val about 10% of all images, cut by group from the rest. A given test
    split is kept (so is a given val split); an image of the same group that was given as train or
    val moves into test, because neither leaking it nor losing it would do. With `folds` = K the
    column `fold` is 0 (the test split) and 1..K-1 (the rest in stratified group folds), else
    missing.
    split="random" lets every image go its own way; `group_id` is recorded all the same.
    Raises ManifestError.
    """
    if split not in ("group", "random"):
        raise ManifestError(f"The split must be group or random. Received: {split!r}.")
    if folds < 0 or folds == 1:
        raise ManifestError(f"The folds must be 0 (none) or at least 2. Received: {folds}.")
    _check(table)
    # Everything below works on sorted rows, so that the input's order cannot matter.
    order = np.argsort(table["image_id"].astype(str).to_numpy(), kind="stable")
    rows = table.iloc[order].reset_index(drop=True)
    group_id = _group_ids(rows, near_duplicates)
    unit = rows["image_id"].astype(str).to_numpy() if split == "random" else group_id
    y = np.unique(rows["label"].astype(str).to_numpy(), return_inverse=True)[1]
    units = np.unique(unit, return_inverse=True)[1]
    class_names = sorted(rows["label"].astype(str).unique())
    given = rows["split_given"].fillna("").astype(str).to_numpy() if "split_given" in rows else None

    split_of = _split(y, units, given, class_names, seed)
    fold = _folds(y, units, split_of, folds, seed)
    out = rows.reindex(columns=[*MANIFEST_COLUMNS, *([SOURCE_COLUMN] if sources else [])])
    for column in ("original_label", "path", "sha256", "format"):
        out[column] = out[column].astype(object).fillna("").astype(str)
    out["group_id"] = group_id
    out["split"] = split_of
    out["fold"] = pd.array(fold, dtype="Int64") if folds else pd.array([pd.NA] * len(out), "Int64")
    back = np.empty(len(order), dtype=np.int64)
    back[order] = np.arange(len(order))
    return out.iloc[back].reset_index(drop=True)


def fold_splits(
    manifest: pd.DataFrame, fold: int, inner: bool, split: str, seed: int
) -> np.ndarray:
    """Who trains, validates and is predicted for one fold: "train", "val", "test" or "" (n,).

    manifest: with the column fold filled. "test" is the fold itself. An inner fold leaves out the
    hold-out split (""), so that its model may calibrate for it. A tenth of the rest is "val", cut
    by group and class (by image where split is "random") with `seed`.
    Raises ManifestError where a class has too few groups for that.
    """
    ordered = manifest.reset_index(drop=True).sort_values("image_id")  # rows' order cannot matter
    folds = ordered["fold"].to_numpy(dtype=np.int64)
    split_of = np.where(folds == fold, "test", "train").astype(object)
    if inner:
        split_of[folds == 0] = ""
    return _with_validation(ordered, split_of, split, seed, f"fold {fold}; ask for fewer folds")


def source_splits(manifest: pd.DataFrame, source: str, split: str, seed: int) -> np.ndarray:
    """The same where one source is held out: its images are "test" (n,).

    manifest: with the column source. Images of other sources that belong to a group of a held-out
    image (its patient, a copy) are left out (""), so that the model never saw any of it.
    Raises ManifestError where a class has too few groups left.
    """
    ordered = manifest.reset_index(drop=True).sort_values("image_id")
    held = (ordered["source"] == source).to_numpy()
    group = ordered["group_id"].astype(str).to_numpy()
    split_of = np.where(np.isin(group, group[held]), "", "train").astype(object)
    split_of[held] = "test"
    return _with_validation(
        ordered, split_of, split, seed, f"a training without {source}; leave it in"
    )


def _with_validation(
    ordered: pd.DataFrame, split_of: np.ndarray, split: str, seed: int, what: str
) -> np.ndarray:
    """split_of with a tenth of "train" as "val", in the order of the manifest's rows.

    ordered: the manifest sorted by image_id, its index the rows' places.
    """
    unit = ordered["image_id" if split == "random" else "group_id"].astype(str).to_numpy()
    y = np.unique(ordered["label"].astype(str).to_numpy(), return_inverse=True)[1]
    rest = split_of == "train"
    units = np.unique(unit[rest], return_inverse=True)[1]
    n_folds = max(2, round(1 / VAL_FRACTION))
    is_val = np.zeros(len(split_of), dtype=bool)
    is_val[rest] = _cut(y[rest], units, n_folds, seed, 1)
    split_of[is_val] = "val"
    for label, name in enumerate(sorted(ordered["label"].astype(str).unique())):
        if not all(((split_of == who) & (y == label)).any() for who in ("train", "val")):
            raise ManifestError(
                f"The class {name!r} has too few groups (patients) for {what}, or leave the "
                "class out."
            )
    back = np.empty(len(split_of), dtype=object)
    back[ordered.index.to_numpy()] = split_of
    return back


def fingerprint(manifest: pd.DataFrame) -> str:
    """sha256 (hex) over the sorted (image_id, sha256, label) of all images."""
    rows = sorted(
        zip(
            manifest["image_id"].astype(str),
            manifest["sha256"].astype(str),
            manifest["label"].astype(str),
            strict=True,
        )
    )
    # Lengths stand before the parts, so that no two tables can spell the same bytes.
    digest = hashlib.sha256()
    for row in rows:
        for field in row:
            data = field.encode()
            digest.update(b"%d:" % len(data) + data)
    return digest.hexdigest()


def _check(table: pd.DataFrame) -> None:
    absent = [name for name in ("image_id", "label", "patient_id") if name not in table]
    if absent:
        raise ManifestError(f"The table lacks the columns {', '.join(absent)}.")
    if not len(table):
        raise ManifestError("There are no images to split; check the data set's folder.")
    for column in ("image_id", "label", "patient_id"):
        empty = table[column].isna() | (table[column].astype(str) == "")
        if empty.any():
            raise ManifestError(
                f"{int(empty.sum())} of {len(table)} images have no {column}; fill it in."
            )
    twice = table["image_id"][table["image_id"].duplicated()]
    if len(twice):
        raise ManifestError(f"The image_id {twice.iloc[0]!r} occurs twice; each must be unique.")
    if table["label"].nunique() < 2:
        raise ManifestError(
            f"All {len(table)} images are of the class {table['label'].iloc[0]!r}; "
            "at least two classes are needed."
        )
    if "split_given" in table:
        odd = set(table["split_given"].fillna("").astype(str)) - {"", "train", "val", "test"}
        if odd:
            raise ManifestError(
                f"split_given must be empty, train, val or test. Received: {min(odd)!r}."
            )


def _group_ids(rows: pd.DataFrame, near_duplicates: pd.DataFrame | None) -> np.ndarray:
    """First patient_id of each group: union-find over patients, equal files and duplicates."""
    patient = rows["patient_id"].astype(str).to_numpy()
    names, index = np.unique(patient, return_inverse=True)
    parent = np.arange(len(names))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    def join(a: int, b: int) -> None:
        a, b = sorted((root(a), root(b)))
        parent[b] = a  # the smaller name leads, whatever the order of the pairs

    if "sha256" in rows:
        first: dict[str, int] = {}
        for sha256, i in zip(rows["sha256"].fillna("").astype(str), index, strict=True):
            if sha256:
                join(first.setdefault(sha256, i), i)
    if near_duplicates is not None and len(near_duplicates):
        position = dict(zip(rows["image_id"].astype(str), index, strict=True))
        pairs = near_duplicates[["image_id_a", "image_id_b"]].astype(str)
        for a, b in pairs.itertuples(index=False):
            # A pair may name an image that was left out of this table (another class, skipped).
            if a in position and b in position:
                join(position[a], position[b])
    return np.array([names[root(i)] for i in range(len(names))], dtype=object)[index]


def _split(
    y: np.ndarray,
    units: np.ndarray,
    given: np.ndarray | None,
    class_names: list[str],
    seed: int,
) -> np.ndarray:
    """train, val or test for each row (object (n,)); no unit is ever in two of them."""
    n = len(y)
    split_of = np.full(n, "train", dtype=object)
    is_test = np.zeros(n, dtype=bool)
    is_val = np.zeros(n, dtype=bool)
    if given is not None:
        is_test = np.isin(units, units[given == "test"])
        is_val = np.isin(units, units[given == "val"]) & ~is_test
    needed = 1 + (not is_test.any()) + (not is_val.any())
    for label, name in enumerate(class_names):
        free = (y == label) & ~is_test & ~is_val
        n_units = len(np.unique(units[free]))
        if n_units < needed:
            raise ManifestError(
                f"The class {name!r} has {n_units} groups of images (patients) to split and needs "
                f"at least {needed}; add images of more patients or leave the class out."
            )
    if not is_test.any():
        free = ~is_val
        is_test[free] = _cut(y[free], units[free], TEST_FOLDS, seed, 2 - int(is_val.any()))
    if not is_val.any():
        free = ~is_test
        n_folds = max(2, round(free.sum() / (VAL_FRACTION * n)))
        is_val[free] = _cut(y[free], units[free], n_folds, seed, 1)
    split_of[is_val], split_of[is_test] = "val", "test"
    for split_name in ("train", "val", "test"):
        if given is not None and (given == split_name).any() and split_name != "train":
            continue  # what was given stands as it is
        for label, name in enumerate(class_names):
            if not ((split_of == split_name) & (y == label)).any():
                raise ManifestError(
                    f"The class {name!r} cannot be in train, val and test at once because its "
                    "images hang together in too few groups (patients); add images of more "
                    "patients, or leave the class out."
                )
    return split_of


def _cut(y: np.ndarray, units: np.ndarray, n_folds: int, seed: int, keep: int) -> np.ndarray:
    """Mask of one stratified group fold, mended so that every class is in it.

    keep: how many units of each class must be left outside.
    """
    mask = _stratified_folds(y, units, n_folds, seed) == 0
    size = np.bincount(units, minlength=units.max() + 1)
    for label in np.unique(y):
        mine = units[y == label]
        inside = np.unique(mine[np.isin(mine, units[mask])])
        outside = np.setdiff1d(mine, inside)
        if not len(inside) and len(outside) > keep:
            smallest = outside[np.argmin(size[outside])]
            mask |= units == smallest
    for label in np.unique(y):
        mine = units[y == label]
        inside = np.unique(mine[np.isin(mine, units[mask])])
        short = keep - len(np.setdiff1d(mine, inside))
        if short > 0 and len(inside) > short:
            give = inside[np.argsort(size[inside], kind="stable")][:short]
            mask &= ~np.isin(units, give)
    return mask


def _folds(
    y: np.ndarray, units: np.ndarray, split_of: np.ndarray, folds: int, seed: int
) -> np.ndarray | None:
    """Fold 0 is the test split; the rest is cut into folds 1..folds-1. None without folds."""
    if not folds:
        return None
    rest = split_of != "test"
    n_units = len(np.unique(units[rest]))
    if n_units < folds - 1:
        raise ManifestError(
            f"{folds} folds need at least {folds - 1} groups of images (patients) beside the test "
            f"part. Received: {n_units}; ask for fewer folds."
        )
    fold = np.zeros(len(y), dtype=np.int64)
    fold[rest] = 1
    if folds > 2:
        fold[rest] += _stratified_folds(y[rest], units[rest], folds - 1, seed)
    if len(np.unique(fold)) < folds:
        raise ManifestError(
            f"The images cannot be dealt to {folds} folds so that each has some; "
            "ask for fewer folds."
        )
    return fold


def _stratified_folds(y: np.ndarray, units: np.ndarray, n_folds: int, seed: int) -> np.ndarray:
    """Fold number of each row, int (n,)."""
    fold = np.zeros(len(y), dtype=np.int64)
    # scikit-learn refuses more folds than there are groups, or images of the largest class.
    n_folds = min(n_folds, len(np.unique(units)), int(np.bincount(y).max()))
    if n_folds < 2:
        return fold
    splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # A class with fewer images than folds is mended or refused by the callers.
        warnings.simplefilter("ignore", UserWarning)
        for number, (_, rows) in enumerate(splitter.split(y, y, units)):
            fold[rows] = number
    return fold
