"""Lines, words, n-grams and their hashes over Arrow buffers."""
