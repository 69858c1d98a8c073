"""Images and audio of prompts: kinds, bounds, and what is read of them where they are decoded."""
