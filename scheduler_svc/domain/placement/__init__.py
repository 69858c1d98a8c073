"""One request finds its place: filter, choose, reserve, explain."""
