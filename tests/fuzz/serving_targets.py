"""Fuzz targets of a server's doors: HTTP, REST with binary tensors, gRPC, Triton's files, credentials, models."""

from __future__ import annotations

import asyncio
import functools
import io
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from access.tenants import Keys, access_toml, draw_keys, signed
from fakes.network import FakeTransport
from fuzz.target import Target, join_parts, split_parts
from server.model_parts import add_model, counting_model, external_model, table_model
from server.triton_models import CONFIGS

from blindai.model_guard import check_model
from blindai.oip.answers import InferResponse, decode_infer_response, encode_infer_response
from blindai.oip.metadata import decode_metadata
from blindai.oip.raw_request import raw_request
from blindai.oip.rest import decode_infer_request
from blindai.oip.tensors import Datatype, TensorSpec, decode_tensor
from blindai.server.access_file import parse_access_file
from blindai.server.authentication import Access
from blindai.server.content_encoding import inflated
from blindai.server.http_head import judge, path_of
from blindai.server.http_protocol import HttpConnection
from blindai.server.http_server import HttpServer
from blindai.server.load_request import read_load
from blindai.server.model_config_json import read_config
from blindai.server.settings import load_settings
from blindai.server.triton_config import parse_config, read_labels, read_plan
from blindai.server.triton_files import Findings
from blindai.server.worker_protocol import Failed, Load, Loaded, Result, Run, decode_header
