"""Hostile clients, and what becomes of servers under them: ours, and its peers by the same scenarios."""
