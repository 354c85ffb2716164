"""Checkpoint loading, loops, hooks and optimizer constructors."""
