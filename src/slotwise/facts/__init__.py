"""What is: pure values that every other part shares. Standard library only, no clock, no I/O."""
