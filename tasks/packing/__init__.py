"""Token ids to rows of sequence_length, every document closed by one EOS."""
