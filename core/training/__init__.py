"""From a manifest to exported models: prepare, fit, export, cross-validate, resume."""
