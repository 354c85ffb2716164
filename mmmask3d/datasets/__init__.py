"""RGB-D and downstream data sets."""
