"""Providers of models. They do not know each other."""
