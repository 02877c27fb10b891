"""The built-in cluster DNS server, for clusters that cannot get CoreDNS."""
