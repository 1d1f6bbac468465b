"""Fuzz targets of a server's doors: HTTP, REST with binary tensors, gRPC, Triton's files, credentials, models."""

from __future__ import annotations
