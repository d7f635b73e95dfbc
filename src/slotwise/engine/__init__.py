"""When: the only loop, its two clocks, the ports it drives and the journal it keeps."""
