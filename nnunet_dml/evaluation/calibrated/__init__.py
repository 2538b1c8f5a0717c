"""Calibration after training: fitted on the validation cases of a model's folds, stored with it, applied to predictions."""
