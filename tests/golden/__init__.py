"""Archives that every later version must still read to the same symbols. See `test_golden`."""
