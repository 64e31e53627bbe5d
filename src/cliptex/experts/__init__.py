"""Experts: networks of a model zoo that turn images into dense labels."""
