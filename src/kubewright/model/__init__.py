"""Pure functions from configuration and facts to what files and objects must contain."""
