"""Exchange: exported training data and imported expert scores."""
