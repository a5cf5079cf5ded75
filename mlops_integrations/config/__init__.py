"""Settings, from arguments and the environment. Elsewhere only the side process reads a variable: its search path."""
