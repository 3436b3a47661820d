"""The published rows, typed a second time, and their intervals against statsmodels."""

import pytest
from statsmodels.stats.proportion import proportion_confint

from core.evaluation.published_results import FIGURES, ROWS, TARGETS, TASKS

# (key, accuracy, sensitivity, specificity, precision, F1) as the papers' tables have them.
AS_PRINTED = {
    "ozturk_three": (87.02, 85.35, 92.18, 89.96, 87.37),
    "ffb3_three": (87.64, 88.13, 92.59, 90.87, 89.39),
    "hasani_three": (89.70, 95.20, 100, None, None),
    "alavi_three": (92.00, 88.46, 100, 94.07, None),
    "ozturk_two": (98.08, 95.13, 95.3, 98.03, 96.51),
    "hasani_two": (98.23, 92.08, 99.78, None, None),
    "alavi_two": (98.72, 93.33, 100, 99.21, None),
}


def test_rows_are_as_printed():
    assert {row.key: tuple(getattr(row, key) for key in FIGURES) for row in ROWS} == AS_PRINTED


def test_every_row_names_its_source_and_protocol_and_groups_no_patients():
    for row in ROWS:
        assert row.reference.startswith(("10.", "PMC")) and row.protocol
        assert row.patients_grouped == "no"
        assert row.n <= row.task.n and row.key.endswith(row.task.key)
    assert len({row.key for row in ROWS}) == len(ROWS)


def test_the_targets_are_the_two_rows_of_the_first_paper():
    assert {key: row.accuracy for key, row in TARGETS.items()} == {"three": 87.02, "two": 98.08}
    assert all(TARGETS[key].task is task for key, task in TASKS.items())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.key)
def test_intervals_are_wilson_on_the_rows_images(row):
    count = row.accuracy / 100 * row.n
    assert row.interval() == pytest.approx(proportion_confint(count, row.n, method="wilson"))


def test_the_interval_of_87_percent_on_all_images():
    low, high = TARGETS["three"].interval()
    assert (round(100 * low, 1), round(100 * high, 1)) == (84.9, 88.9)
