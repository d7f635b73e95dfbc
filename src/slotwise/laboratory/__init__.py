"""The laboratory: experiments that hold claims of papers against this system, found, run, judged and reported."""
