"""What the scheduler writes down for good: the ports of its journal, one per noun."""
