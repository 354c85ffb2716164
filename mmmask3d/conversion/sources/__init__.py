"""One converter for each data set, and for folders of your own."""
