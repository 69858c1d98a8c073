"""vLLM's API server over the fleet: the only folder of the gateway that imports vLLM."""
