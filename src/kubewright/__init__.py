"""Kubewright builds Kubernetes clusters on machines that people own, and keeps them alive."""

__version__ = "0.1.0"
