"""The command line: ``mlops-integrations sync``, ``status``, ``runs``, ``show``, ``doctor``, ``clean``."""
