"""The run directory on disk: records, cursor, lease, and who is alive. It knows nothing of servers."""
