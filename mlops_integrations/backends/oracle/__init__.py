"""The MLflow API of Oracle AI Data Platform."""
