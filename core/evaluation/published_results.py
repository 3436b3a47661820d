"""Published results on the darkcovidnet images, as their papers give them.

Figures are percent. None of these studies kept the images of one patient together, so a row says
what was reached under its own protocol and not what a new patient can expect. The interval of an
accuracy is ours: no paper gives one.
"""

from __future__ import annotations

from dataclasses import dataclass

from core.metrics.bootstrap import wilson_interval

DATASET = "darkcovidnet"
FIGURES = ("accuracy", "sensitivity", "specificity", "precision", "f1")
UNKNOWN = "not known to us"
RANDOM_FOLDS = "5 folds, random: images of one patient stand on both sides"


@dataclass(frozen=True)
class PublishedTask:
    """What is told apart. class_names as runs have them; n: images of these classes published."""

    key: str
    title: str
    class_names: tuple[str, ...]
    n: int


THREE = PublishedTask("three", "3 classes", ("covid", "normal", "pneumonia"), 1125)
TWO = PublishedTask("two", "covid / no findings", ("covid", "normal"), 625)
TASKS = {task.key: task for task in (THREE, TWO)}


@dataclass(frozen=True)
class Published:
    """One row: figures in percent, None where the paper gives none.

    reference: DOI or PMC number; n: images that the figures are about, at most (where a paper's
    protocol is not known, all of the task: its interval can only be wider than ours says).
    """

    key: str
    authors: str
    year: int | None
    reference: str
    task: PublishedTask
    accuracy: float
    sensitivity: float | None
    specificity: float | None
    precision: float | None
    f1: float | None
    protocol: str
    n: int
    patients_grouped: str = "no"

    @property
    def label(self) -> str:
        """Such as "Ozturk et al. 2020"."""
        return f"{self.authors} {self.year}" if self.year else self.authors

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Wilson interval of the accuracy on n images, fractions: every image for itself, since
        the papers do not tell patients apart."""
        return wilson_interval(self.accuracy / 100 * self.n, self.n, level)


OZTURK = "10.1016/j.compbiomed.2020.103792"
HASANI = "10.1016/j.radi.2022.03.011 (PMC8958100)"
ALAVI = "10.1155/2022/4694567"
ROWS = (
    Published(
        "ozturk_three", "Ozturk et al. (DarkCovidNet)", 2020, OZTURK, THREE,
        87.02, 85.35, 92.18, 89.96, 87.37, RANDOM_FOLDS, THREE.n,
    ),
    Published(
        "ffb3_three", "FFB3", None, "PMC8255192", THREE,
        87.64, 88.13, 92.59, 90.87, 89.39, UNKNOWN, THREE.n,
    ),
    Published(
        "hasani_three", "Nasiri & Hasani", 2022, HASANI, THREE,
        89.70, 95.20, 100.0, None, None, UNKNOWN, THREE.n,
    ),
    Published(
        "alavi_three", "Nasiri & Alavi", 2022, ALAVI, THREE,
        92.00, 88.46, 100.0, 94.07, None, "one hold-out of 225 images", 225,
    ),
    Published(
        "ozturk_two", "Ozturk et al. (DarkCovidNet)", 2020, OZTURK, TWO,
        98.08, 95.13, 95.3, 98.03, 96.51, RANDOM_FOLDS, TWO.n,
    ),
    # From the abstracts of the same two papers.
    Published(
        "hasani_two", "Nasiri & Hasani", 2022, HASANI, TWO,
        98.23, 92.08, 99.78, None, None, UNKNOWN, TWO.n,
    ),
    Published(
        "alavi_two", "Nasiri & Alavi", 2022, ALAVI, TWO,
        98.72, 93.33, 100.0, 99.21, None, UNKNOWN, TWO.n,
    ),
)  # fmt: skip
# What this project set out to exceed, and no other row: a target is chosen before it is tried.
TARGETS = {
    "three": next(row for row in ROWS if row.key == "ozturk_three"),
    "two": next(row for row in ROWS if row.key == "ozturk_two"),
}
