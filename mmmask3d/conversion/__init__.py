"""Turn RGB-D data sets as distributed into the layout that the data sets of this project read.

``sources`` holds one :class:`~mmmask3d.conversion.converter.Converter` a data set, ``rooms`` the
one that generates frames, ``formats`` the readers of their files; the scripts in
``tools/dataset_converters`` are their command lines. What all of them share: ``converter`` (the
interface), ``frame`` (what a frame is and how it is brought to one size), ``storage`` (files that
are complete or absent, the journal), ``job`` (restartable runs), ``workers`` (processes),
``manifest`` (what a finished folder says of itself), ``paths`` (names that stay inside their
folder) and ``coco``.
"""
