"""Hosts: computers that we can run commands on, this one or one over SSH."""

from kubewright.hosts.host import Completed, FileStat, FileWrite, Host
from kubewright.model.facts import HostFacts

__all__ = ["Completed", "FileStat", "FileWrite", "Host", "HostFacts"]
