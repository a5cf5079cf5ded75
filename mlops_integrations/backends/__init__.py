"""The dialects: they turn records into requests and replies into outcomes. They know nothing of journal files.

Backends (for the uploader) don't retry failures; stores (for ``TrackingClient``) repeat calls that are safe to repeat.
"""
