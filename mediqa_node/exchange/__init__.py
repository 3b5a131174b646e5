"""What leaves the node as training data, and what comes in as expert scores."""
