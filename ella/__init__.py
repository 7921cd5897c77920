"""ELLA (arXiv 2403.05135): the timestep-aware connector and its rules, in torch and plain Python, without any host."""

from .checkpoint import connector_config
from .connector import ConnectorConfig, TimestepAwareConnector

__all__ = ["ConnectorConfig", "TimestepAwareConnector", "connector_config"]
