"""From the journal to a server: reads, batches, sends, saves the cursor. Knows dialects only by their protocol."""
