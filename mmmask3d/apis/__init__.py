"""Chains of the project's tools in which every step runs once, also after an interruption."""
