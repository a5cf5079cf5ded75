"""The run directory on disk: records, cursor, lease, life of processes. It knows nothing about servers."""
