"""pandas tables from a run's numbers, in the form that charts and pages want."""
