"""Timings, printed as ratios against real kubeadm where it has a counterpart."""
