"""The rooms: one package a stage, and what they share."""
