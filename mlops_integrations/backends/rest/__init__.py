"""Shared by all MLflow-shaped APIs: JSON, interpretation of replies, artifacts, and ``TrackingClient``'s calls."""
