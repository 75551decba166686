"""What a model is and what it looks at: counts and shapes before it runs, pictures and scores after."""
