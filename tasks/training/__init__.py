"""Continued pre-training with DeepSpeed ZeRO, exact to resume, in torchrun processes of its own."""
