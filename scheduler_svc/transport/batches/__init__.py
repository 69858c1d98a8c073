"""The calls of InferenceService about batches and their files."""
