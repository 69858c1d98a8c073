"""What a scheduler leaves behind on disk for the next one."""
