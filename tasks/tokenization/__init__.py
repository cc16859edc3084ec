"""Documents to token ids with any Hugging Face tokenizer, and a small BPE for those who have none."""
