"""What a model has to beat. Each is fitted on the training examples and answers like a model: rows and scores by query."""
