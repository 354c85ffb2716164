"""Pre-trainer, encoders, decoders, heads and losses."""
