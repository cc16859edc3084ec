"""Exact and near duplicates, keep-first in source order, and the held-out slice."""
