"""Damaged and forged archives and sources, and what must hold of whoever reads them. ``python -m jobs.bench fuzz``."""
