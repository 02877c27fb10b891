"""The built-in pod network: CNI configuration and the agent that routes between nodes."""
