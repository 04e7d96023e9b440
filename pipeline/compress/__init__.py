"""Compression techniques by name."""
