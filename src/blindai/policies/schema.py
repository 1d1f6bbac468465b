"""JSON schemas of policies and manifests, for editors (docs/reference/policy.schema.json, manifest.schema.json).

A TEE's fields are those that its own parser names, with the kinds that its policy's dataclass gives them, so that a new
TEE needs nothing here. The parsers decide; a schema says less: not how long a digest is, which names a TEE knows,
whether `tee.simulation` and `insecure_simulation` fit, or what stands in a manifest.
"""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

from blindai.attestation.policy_tees import GENERAL, MAX_ALTERNATIVES, PRESETS, STRICT, fields_of
from blindai.attestation.tee import TEES
from blindai.policies import preset_table

Schema = dict[str, Any]

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_RELEASE = r"^(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})((a|b|rc)(0|[1-9]\d{0,8}))?$"
_REQUIRED = ("version", "insecure_simulation", "operator", "level", "runtime", "release")


def _table(properties: Schema, *required: str, **more: Any) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
        **more,
    }


_TEXT: Schema = {"type": "string", "pattern": r"\S"}
_SKIP = _table({"skip": {**_TEXT, "description": "why this check is left out; every result repeats it"}}, "skip")
_NUMBER: Schema = {"type": "integer", "minimum": 0}
_KEYS: Schema = {
    "type": "array",
    "minItems": 1,
    "items": {"type": "string", "pattern": r"^[A-Za-z0-9_-]{43}$"},
    "description": "Ed25519 public keys in unpadded base64url",
}
_HEX_LIST: Schema = {"type": "array", "minItems": 1, "items": {"type": "string", "pattern": r"^([0-9a-f]{2})+$"}}
_SCALAR: Schema = {"type": ["boolean", "integer", "string"]}
_DEMAND: Schema = {"anyOf": [_SCALAR, {"type": "array", "items": _SCALAR}]}
_DEMANDS: Schema = {
    "type": "object",
    "minProperties": 1,
    "propertyNames": {"pattern": r"^[a-z][a-z0-9_]{0,63}$"},
    "additionalProperties": _DEMAND,
}
# What a field accepts, and the name of that here, by the type that its dataclass gives it; another may be anything.
_KINDS: dict[str, tuple[str, Schema]] = {
    "tuple[bytes, ...] | Skip": ("hex_list", {"anyOf": [_HEX_LIST, _SKIP]}),
    "tuple[str, ...] | Skip": ("names", {"anyOf": [{"type": "array", "items": {"type": "string"}}, _SKIP]}),
    "tuple[int, ...] | Skip": ("numbers", {"anyOf": [{"type": "array", "items": _NUMBER}, _SKIP]}),
    "bool | Skip": ("flag", {"anyOf": [{"type": "boolean"}, _SKIP]}),
    "int | Skip": ("number", {"anyOf": [_NUMBER, _SKIP]}),
    "frozenset[str]": ("codes", {"type": "array", "items": {"type": "string"}}),
}


def _field(kind: str) -> Schema:
    return {"$ref": f"#/$defs/{_KINDS[kind][0]}"} if kind in _KINDS else {}


def field_kinds(tee: str) -> dict[str, str]:
    """The type of each field, as the dataclass of the TEE's policy writes it."""
    parser = TEES[tee].parse_policy
    policy = getattr(sys.modules[parser.__module__], parser.__annotations__["return"])
    return {field.name: str(field.type) for field in dataclasses.fields(policy)}


def tee_properties(tee: str) -> dict[str, Schema]:
    """Each field of a TEE's table, and what it accepts."""
    kinds = field_kinds(tee)
    return {name: _field(kinds.get(name, "")) for name in fields_of(tee)}


def _tee(tee: str, *, has_preset: bool) -> Schema:
    """A TEE's table, with every field that no preset sets; a manifest may have reference values instead."""
    fields = tee_properties(tee)
    from_strict = (preset_table(STRICT, tee) or {}).keys()
    from_any = {name for preset in PRESETS for name in preset_table(preset, tee) or {}}
    checks = [] if has_preset else [name for name in fields if name in from_strict]
    values = [name for name in fields if name not in (from_any if has_preset else from_strict)]
    properties = {**fields, "reference_values": {"const": "manifest"}}
    written = {"required": values, "properties": {"reference_values": False}}
    listed = {"required": ["reference_values"]}
    return _table(properties, *checks, anyOf=[written, listed])


def _tees(*, has_preset: bool) -> Schema:
    """The tables under `tee`, at least one; a preset meets only the TEEs that it has a table for."""
    names = [tee for tee in TEES if not has_preset or preset_table(STRICT, tee) is not None]
    tables = {tee: _tee(tee, has_preset=has_preset) for tee in names}
    return _table(tables, minProperties=1)


def _alternatives(name: str) -> Schema:
    tees = {"$ref": f"#/$defs/{name}"}
    alternative = _table({"tee": tees}, "tee")
    return {
        "properties": {
            "tee": tees,
            "any_of": {"type": "array", "minItems": 1, "maxItems": MAX_ALTERNATIVES, "items": alternative},
        }
    }


def policy_schema() -> Schema:
    """The schema of a version 1 policy file."""
    from_preset = (preset_table(STRICT, GENERAL) or {}).keys()
    with_preset = [name for name in _REQUIRED if name not in from_preset]
    properties: Schema = {
        "version": {"const": 1},
        "preset": {"enum": list(PRESETS), "description": "sets whatever this file does not: docs/reference/presets.md"},
        "insecure_simulation": {"type": "boolean", "description": "accept evidence that protects nothing"},
        "operator": {"anyOf": [_table({"public_keys": _KEYS}, "public_keys"), _SKIP]},
        "level": _table({"minimum": {"enum": ["pinned-tls", "cached", "fresh"]}}, "minimum"),
        "release": {"anyOf": [_table({"minimum": {"type": "string", "pattern": _RELEASE}}, "minimum"), _SKIP]},
        "runtime": {"anyOf": [_table({"require": _runtime()}, "require"), _SKIP]},
        "manifest": _table({"file": _TEXT, "public_keys": _KEYS}, "file", "public_keys"),
        "tee": {"type": "object"},
        "any_of": {"type": "array"},
    }
    return {
        "$schema": _DIALECT,
        "title": "BlindAI policy, version 1",
        **_table(properties, "version"),
        "anyOf": [{"required": ["tee"]}, {"required": ["any_of"]}],
        "if": {"required": ["preset"]},
        "then": {"required": with_preset, **_alternatives("tees_with_preset")},
        "else": {"required": list(_REQUIRED), **_alternatives("tees")},
        "$defs": {
            **dict(_KINDS.values()),
            "tees_with_preset": _tees(has_preset=True),
            "tees": _tees(has_preset=False),
        },
    }


def _runtime() -> Schema:
    return {**_DEMANDS, "additionalProperties": {"anyOf": [_DEMAND, _DEMANDS]}}


def manifest_schema() -> Schema:
    """The schema of a version 1 manifest."""
    values: Schema = {"anyOf": [_HEX_LIST, _NUMBER]}
    for _ in range(2):
        table = {"type": "object", "minProperties": 1, "additionalProperties": values}
        values = {"anyOf": [_HEX_LIST, _NUMBER, table]}
    tees = {
        "type": "object",
        "propertyNames": {"pattern": r"^[a-z][a-z0-9_]{0,31}$"},
        "additionalProperties": {"type": "object", "minProperties": 1, "additionalProperties": values},
    }
    models = {"type": "object", "additionalProperties": {"type": "string", "pattern": r"^sha256:[0-9a-f]{64}$"}}
    properties: Schema = {
        "version": {"const": 1},
        "name": _TEXT,
        "release": {"type": "string", "pattern": _RELEASE},
        "tee": tees,
        "models": models,
    }
    named = [{"required": [name], "properties": {name: {"minProperties": 1}}} for name in ("tee", "models")]
    return {
        "$schema": _DIALECT,
        "title": "BlindAI manifest, version 1",
        **_table(properties, "version", "name", "release"),
        "anyOf": named,
    }
