"""Search over recipes, as Optuna studies."""
