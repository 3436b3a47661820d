"""The audit: blackout, source probe, perturbation and subgroups of a run."""
