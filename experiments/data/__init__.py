"""Facts as text: tables and files of facts, sentences and questions rendered from them, tokens, packed batches."""
