"""Processes: job files, torchrun, log and progress streaming, process groups, memory, energy, imports."""
