"""Deployments and recipes."""
