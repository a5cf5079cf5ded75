"""What a training process does: log calls become records in a journal of its own. Nothing here waits for a server."""
