"""Source shards: an ordered, content-addressed list, each streamed in bounded memory."""
