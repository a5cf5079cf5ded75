"""Delivery from the journal to a server: reads, batches, sends, saves the cursor. Knows only the dialects' protocol."""
