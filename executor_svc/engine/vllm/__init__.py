"""The vLLM engine.  No other package of the executor imports vLLM."""
