"""What a search is: its space and journal, the oracle that proposes trials, and the folder that keeps them."""
