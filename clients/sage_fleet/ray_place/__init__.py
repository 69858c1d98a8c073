"""A fleet on a Ray cluster: one detached actor per executor, which Ray places and restarts."""
