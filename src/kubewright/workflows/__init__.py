"""Which phases run, in what order, on which hosts at once."""
