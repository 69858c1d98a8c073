"""Which of the engines that share a device are awake."""
