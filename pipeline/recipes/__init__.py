"""Runnable recipes that come with phonefit."""
