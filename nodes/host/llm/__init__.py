"""Language models: servers, their client, and the host's own text models."""
