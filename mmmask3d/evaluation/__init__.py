"""Metrics and the non-learned baselines they are printed next to."""
