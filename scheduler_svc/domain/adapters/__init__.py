"""Which instances hold which LoRA adapters of the registry."""
