"""ELLA's files, text encoder and per-step conditioning on the host."""
