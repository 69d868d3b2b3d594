"""Pure rules that learn from what they see: how many at once, how large, when to poll. No I/O, no clock."""
