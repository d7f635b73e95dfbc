"""What would be possible: bounds that no scheduler can pass, and a schedule made with knowledge of the future."""
