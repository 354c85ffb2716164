"""Generated rooms: RGB-D frames with exact labels and no licence terms."""
