"""Generated rooms: RGB-D frames with exact labels, without terms."""
