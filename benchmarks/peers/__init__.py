"""Other inference servers beside this one: how each is installed, started, asked and read, and what is compared."""
