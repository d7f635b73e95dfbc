"""`python -m slotwise.cli`."""

from slotwise.cli import main

main()
