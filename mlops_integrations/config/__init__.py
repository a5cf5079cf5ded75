"""Settings, from arguments and the environment: the only readers of environment variables."""
