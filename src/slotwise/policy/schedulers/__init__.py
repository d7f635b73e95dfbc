"""One file for each way to choose the next batch, and the table of their names."""
