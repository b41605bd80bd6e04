"""What a search found: its trials read again, the comparison after it, and figures."""
