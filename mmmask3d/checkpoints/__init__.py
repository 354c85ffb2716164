"""Checkpoint files: from bytes on a disk or a server to tensors."""
