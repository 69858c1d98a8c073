"""Lines of batches as OpenAI's API has them: requests in, responses out."""
