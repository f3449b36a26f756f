"""A whole business in one command: an LLM API that sells tokens."""
