"""Media cases: sources of every kind, each with what must survive of it. See ``case.py``."""
