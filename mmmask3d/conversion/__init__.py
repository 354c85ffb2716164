"""Turn RGB-D data sets as distributed into the layout that the data sets of this project read.

One module a data set, each with a :class:`~mmmask3d.conversion.converter.Converter`; the scripts
in ``tools/dataset_converters`` are their command lines. What all of them share: ``converter``
(the interface), ``frame`` (what a frame is and how it is brought to one size), ``storage`` (files
that are complete or absent, the journal, the manifest), ``job`` (parallel, restartable runs),
``paths`` (names that stay inside their folder) and ``coco``.
"""
