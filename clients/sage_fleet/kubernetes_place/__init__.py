"""A fleet on Kubernetes: an overlay of docker/kubernetes, applied by kubectl."""
