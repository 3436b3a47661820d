"""Train and honestly evaluate chest X-ray classifiers; every result lands in `artifacts/`."""
