"""What the ends of the calls about files and batches agree on."""

FILE_PIECE_BYTES = 1024 * 1024
"""Most bytes of a file in one message, up and down."""

CHAT_COMPLETIONS = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
EMBEDDINGS = "/v1/embeddings"

ENDPOINTS = (CHAT_COMPLETIONS, COMPLETIONS, EMBEDDINGS)
"""What a batch's lines may ask for."""
