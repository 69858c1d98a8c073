"""The scheduler: decides who goes next and where, relays tokens, survives the death of any executor."""
