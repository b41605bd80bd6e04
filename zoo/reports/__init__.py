"""Reports: the runs of a sweep in groups, the statistics of their differences, figures, and the documents of them."""
