"""Weights as products: export, formats of other projects, the model zoo, publishing."""
