"""What each version of Kubernetes changes, as a page: docs/versions.md."""
