"""What became of single requests, and why: a journal read for the story of one, or for those that missed by most."""
