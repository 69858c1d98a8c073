"""The sections of the scheduler's configuration."""
