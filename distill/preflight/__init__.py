"""What would go wrong, looked for before anything is trained."""
