"""Clients of the services that a cluster is made of."""
