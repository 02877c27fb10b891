"""Where components come from: sources, the cache, and images made out of binaries."""
