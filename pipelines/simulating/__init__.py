"""Data sets: chains of simulated groups mapped over an executor, written as they come."""
