"""What `doctor` looks at, and what it concludes: pure, a module an area (ARCHITECTURE.md)."""
