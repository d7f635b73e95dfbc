"""Numbers for those who watch a server."""
