"""What a stage matches: the losses, what they read of either model, fidelity by layer."""
