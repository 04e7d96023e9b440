"""How a model file is measured. Never imports torch or training code."""
