"""A reader of archives that shares nothing with the product but docs/format.md."""
