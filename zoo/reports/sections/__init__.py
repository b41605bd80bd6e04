"""The sections of a report: each module makes blocks of a document from the results of a sweep."""
