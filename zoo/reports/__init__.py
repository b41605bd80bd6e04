"""Reports: the runs of a sweep in groups, statistics of their differences, figures, and documents."""
