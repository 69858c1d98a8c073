"""The parts of the domain's entrance, which ``scheduler.py`` makes one of."""
