"""The part in the training process: log calls become records in its own journal. No log call waits for a server."""
