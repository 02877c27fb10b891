"""Machines on this computer: systemd-nspawn containers that stand in for real hosts."""
