"""Code that the integrations of all frameworks share."""
