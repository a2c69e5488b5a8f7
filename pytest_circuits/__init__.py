"""Behavioural regression tests of transformer circuits."""
