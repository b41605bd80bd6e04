"""The sections of a report, a module each: blocks of a document from the results of a sweep."""
