"""The LoRA adapters that operators add and remove at run time, and what each instance has of them."""
