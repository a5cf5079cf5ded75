"""What all MLflow-shaped APIs share: their JSON, what replies mean, and the calls of ``TrackingClient``."""
