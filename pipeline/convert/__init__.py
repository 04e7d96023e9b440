"""Converters by name."""
