"""The state of the Predict page: uploads, batches, which models answer."""
