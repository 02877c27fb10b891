"""Named, idempotent steps: each looks, acts and verifies through the clients."""
