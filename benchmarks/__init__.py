"""Ours beside the peers, on the same work, in the same run. ``nox -s bench`` runs all of it."""
