"""What becomes of a trained model: merged, exported, checked."""
