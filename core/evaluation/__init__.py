"""What is measured of a run: scores, shortcut baselines, audits, external sets, heat maps,
folds.
"""
