"""Puts the encoder into an mmseg or mmdet config in place of its ResNet."""
