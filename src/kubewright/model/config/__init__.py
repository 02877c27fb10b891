"""The configuration files: their types, defaults and validation."""
