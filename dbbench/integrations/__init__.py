"""A memory table in one line for what people train with: transformers' Trainer, Lightning and Accelerate.

Each module imports the package that it is for, and nothing here imports a module.
"""
