"""Transforms that keep RGB, depth and validity together."""
