"""Pictures of frames and reconstructions."""
