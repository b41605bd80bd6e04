"""The results of a search: its trials read back, the comparison after it, and figures."""
