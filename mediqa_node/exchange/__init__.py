"""Exchange: exported training data and imported ratings."""
