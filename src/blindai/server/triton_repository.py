"""A Triton model repository, read once at the start: its models enter the store like uploads.

    MODEL/[config.pbtxt]  MODEL/VERSION/model.onnx (+ its external data)  MODEL/[labels…]  MODEL/[warmup/…]

The operator's directory is never read again: what is served is what was hashed, and the hashes stand in the keyset.
One problem anywhere and nothing is served; all problems of all models are told at once.
Leaves out: config.pbtxt (`triton_config`), and whether models load and are what it says (`start_check`).
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from blindai.bundle import MODEL_NAME, MODEL_VERSION, UploadHeader, digest_text
from blindai.errors import BlindAIError, InvalidInputError, InvalidSettingsError, ModelStoreError
from blindai.server.catalogue import StoredModel
from blindai.server.ensemble import EnsembleManifest
from blindai.server.ensemble_check import batch_problems, wiring_problems
from blindai.server.triton_config import CONFIG_FILE, MAX_CONFIG_BYTES, ModelPlan, parse_config, read_labels, read_plan
from blindai.server.triton_files import Findings, RepositoryFolder
from blindai.server.triton_warmup import WARMUP_FOLDER, WarmupReader
from blindai.wire import MAX_LIST, compact_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from blindai.server.model_config import EnsembleStep, ServingConfig
    from blindai.server.model_store import ModelStore
    from blindai.wire import Json

MAX_LABEL_BYTES = 16 * 1024 * 1024
_PIECE_BYTES = 1024 * 1024
_SILENT_FOLDERS = (WARMUP_FOLDER,)


@dataclass(frozen=True, slots=True, kw_only=True)
class StartModels:
    """What came from a repository.

    Attributes:
        directory: the repository, for messages.
        models: in the order in which they were registered.
        description: names, digests and the hashes of all other files, as JSON; part of the configuration digest.
    """

    directory: str = ""
    models: tuple[StoredModel, ...] = ()
    description: bytes = b""

    @property
    def digests(self) -> tuple[str, ...]:
        """For the attested runtime policy: each once, sorted."""
        return tuple(sorted({model.digest for model in self.models}))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bundle:
    """The files of one version, all in one folder."""

    version: int
    folder: RepositoryFolder
    header: UploadHeader


@dataclass(slots=True, kw_only=True)
class _Found:
    """One model folder as it was read."""

    name: str
    folder: RepositoryFolder
    plan: ModelPlan
    files: dict[str, bytes]
    versions: tuple[int, ...] = ()
    bundles: tuple[_Bundle, ...] = ()
    stored: dict[str, StoredModel] = field(default_factory=dict)

    @property
    def where(self) -> str:
        return self.folder.where(CONFIG_FILE)

    @property
    def serving(self) -> ServingConfig:
        return self.plan.serving


def load_repository(directory: str, store: ModelStore, *, max_model_bytes: int, max_request_bytes: int) -> StartModels:
    """Read a repository and register its models, oldest versions first and ensembles last.

    Args:
        directory: the repository.
        store: where the models go, encrypted.
        max_model_bytes: of one version's files.
        max_request_bytes: of one warm-up request.

    Raises:
        InvalidSettingsError: what is wrong with it, all at once.
    """
    findings = Findings()
    root = _root(directory, findings)
    found = {model.name: model for model in _models(root, max_model_bytes, max_request_bytes)}
    ensembles = _ordered(found, findings)
    if sum(len(model.versions) for model in found.values()) > MAX_LIST:
        findings.refuse(".", f"at most {MAX_LIST} versions of models are served, since the keyset lists them all")
    findings.settle(directory)
    for model in found.values():
        for bundle in model.bundles:
            _store_bundle(model, bundle, store, findings)
    if not findings.problems:
        for model in ensembles:
            _store_ensemble(model, found, store, findings)
    findings.settle(directory)
    models = [stored for model in found.values() for stored in model.stored.values()]
    return StartModels(
        directory=directory,
        models=tuple(sorted(models, key=lambda model: model.sequence)),
        description=compact_json([_described(found[name]) for name in sorted(found)]),
    )


def _root(directory: str, findings: Findings) -> RepositoryFolder:
    try:
        root = Path(directory).resolve(strict=True)
    except OSError as error:
        raise InvalidSettingsError(f"cannot read the model repository {directory}: {error.strerror}") from None
    if not root.is_dir():
        raise InvalidSettingsError(f"the model repository {directory} is not a directory")
    return RepositoryFolder(root=root, path=root, findings=findings)


def _models(root: RepositoryFolder, max_model_bytes: int, max_request_bytes: int) -> Iterator[_Found]:
    folders, files = root.entries()
    for name in files:
        root.findings.ignore(name, "a file beside the models' folders")
    for name in folders:
        if not MODEL_NAME.match(name):
            root.findings.refuse(name, "a model's name has 1 to 128 letters, digits, '.', '_' or '-'")
            continue
        model = _model(name, root.folder(name), max_request_bytes)
        if model is not None:
            model.bundles = tuple(_bundles(model, max_model_bytes))
            yield model


def _model(name: str, folder: RepositoryFolder, max_request_bytes: int) -> _Found | None:
    folders, names = folder.entries()
    where, files, plan = folder.where(CONFIG_FILE), dict[str, bytes](), ModelPlan()
    if CONFIG_FILE in names:
        content = folder.read(CONFIG_FILE, MAX_CONFIG_BYTES)
        message = None if content is None else parse_config(content, where, folder.findings)
        if content is None or message is None:
            return None
        files[CONFIG_FILE] = content
        plan = read_plan(message, name, where, folder.findings)
    labels = tuple(_labels(plan, folder, files))
    warmup = WarmupReader(folder, where, max_request_bytes)
    requests = warmup.requests(plan.warmup, plan.serving)
    plan = replace(plan, serving=replace(plan.serving, labels=labels, warmup=requests))
    for extra in sorted(set(names) - files.keys()):
        folder.findings.ignore(folder.where(extra), "a file that the configuration does not name")
    found = _Found(name=name, folder=folder, plan=plan, files={**files, **warmup.files})
    found.versions = _versions(found, folders)
    return found


def _labels(
    plan: ModelPlan, folder: RepositoryFolder, files: dict[str, bytes]
) -> Iterator[tuple[str, tuple[str, ...]]]:
    for output, name in plan.label_files:
        content = folder.read(name, MAX_LABEL_BYTES)
        if content is None:
            continue
        files[name] = content
        try:
            yield output, read_labels(content)
        except InvalidInputError as error:
            folder.findings.refuse(folder.where(name), str(error))


def _versions(model: _Found, folders: Sequence[str]) -> tuple[int, ...]:
    """The versions that the policy chooses; folders that are no version are ignored, as in Triton."""
    there, findings = [], model.folder.findings
    for name in folders:
        if name.isascii() and name.isdigit() and not name.startswith("0") and MODEL_VERSION.match(name):
            there.append(int(name))
        elif name not in _SILENT_FOLDERS:
            findings.ignore(model.folder.where(name), "a folder that is no version (a number that starts with no 0)")
    policy = model.plan.versions
    for version in sorted(set(policy.specific) - set(there)):
        findings.refuse(model.where, f"version_policy: version {version} is named, and its folder is not there")
    if not there:
        findings.refuse(model.folder.name, "has no version folder", f"for example {model.name}/1/model.onnx")
    return policy.chosen(there)


def _bundles(model: _Found, max_model_bytes: int) -> Iterator[_Bundle]:
    for version in () if model.serving.steps else model.versions:
        folder = model.folder.folder(str(version))
        bundle = _bundle(model, version, folder, max_model_bytes)
        if bundle is not None:
            yield bundle


def _bundle(model: _Found, version: int, folder: RepositoryFolder, max_model_bytes: int) -> _Bundle | None:
    folders, names = folder.entries()
    main = model.plan.model_file
    if main in folders:  # Triton's form for a model of several files
        return _bundle(_folder_form(model), version, folder.folder(main), max_model_bytes)
    if main not in names:
        folder.findings.refuse(folder.where(main), "not there", "default_model_filename names another")
        return None
    for name in folders:
        folder.findings.refuse(
            folder.where(name), "a folder inside a version's folder", "external data lies beside the model"
        )
    for name in names:
        if name != main and name.endswith(".onnx"):
            folder.findings.ignore(folder.where(name), "a second model")
    kept = [name for name in names if name == main or not name.endswith(".onnx")]
    sizes = [(name, size) for name in kept if (size := _size(folder, name)) is not None]
    if len(sizes) < len(kept):
        return None
    try:
        header = UploadHeader(version=str(version), files=tuple(sizes), default_shape=None, load=True)
    except BlindAIError as error:
        folder.findings.refuse(folder.name, str(error), error.hint)
        return None
    if header.total_size > max_model_bytes:
        folder.findings.refuse(folder.name, f"a model has at most {max_model_bytes} bytes (max_model_bytes)")
    return _Bundle(version=version, folder=folder, header=header)


def _folder_form(model: _Found) -> _Found:
    """The model inside a folder that stands for it is called model.onnx, whatever the folder's name."""
    return replace(model, plan=replace(model.plan, model_file=ModelPlan().model_file))


def _size(folder: RepositoryFolder, name: str) -> int | None:
    descriptor = folder.open(name)
    if descriptor is None:
        return None
    with os.fdopen(descriptor, "rb") as file:
        return os.fstat(file.fileno()).st_size


def _ordered(found: Mapping[str, _Found], findings: Findings) -> list[_Found]:
    """The ensembles, each after those that it is made of; their steps are checked on the way."""
    waiting = {name: model for name, model in found.items() if model.serving.steps}
    for model in waiting.values():
        for problem in _step_problems(model, found):
            findings.refuse(model.where, problem)
    ordered: list[_Found] = []
    while waiting:
        ready = [model for model in waiting.values() if not any(s.model in waiting for s in model.serving.steps)]
        if not ready:
            findings.refuse(", ".join(sorted(waiting)), "circular dependency between ensembles")
            break
        ordered += ready
        waiting = {name: model for name, model in waiting.items() if model not in ready}
    return ordered


def _step_problems(model: _Found, found: Mapping[str, _Found]) -> Iterator[str]:
    yield from wiring_problems(model.serving)
    yield from batch_problems(model.serving, {name: other.serving for name, other in found.items()})
    for step in model.serving.steps:
        if step.model not in found:
            yield f"ensemble contains model {step.model!r}, which is not in the repository or cannot be read"
        elif step.version and int(step.version) not in found[step.model].versions:
            yield f"version {step.version} of model {step.model!r} is not served"


def _store_bundle(model: _Found, bundle: _Bundle, store: ModelStore, findings: Findings) -> None:
    try:
        upload = store.begin_upload(
            model.name, bundle.header, session=model.plan.session, config=model.serving, comes_with_server=True
        )
        try:
            for name, size in bundle.header.files:
                for piece in _pieces(bundle.folder, name, size):
                    upload.write(piece)
            upload.complete()
            model.stored[str(bundle.version)] = upload.register()
        except BaseException:
            upload.abort()
            raise
    except BlindAIError as error:
        findings.refuse(bundle.folder.name, str(error), error.hint)


def _pieces(folder: RepositoryFolder, name: str, size: int) -> Iterator[bytes]:
    """A file's bytes, exactly as many as it had when the repository was listed."""
    descriptor = folder.open(name)
    if descriptor is None:
        raise ModelStoreError(f"{name} can no longer be read")
    with os.fdopen(descriptor, "rb") as file:
        while size:
            piece = file.read(min(size, _PIECE_BYTES))
            if not piece:
                raise ModelStoreError(f"{name} became shorter while it was read")
            size -= len(piece)
            yield piece
        if file.read(1):
            raise ModelStoreError(f"{name} became longer while it was read")


def _store_ensemble(model: _Found, found: Mapping[str, _Found], store: ModelStore, findings: Findings) -> None:
    config = replace(model.serving, steps=tuple(_resolved(step, found) for step in model.serving.steps))
    manifest = EnsembleManifest(files=(), inputs=config.inputs, outputs=config.outputs, steps=config.steps)
    for version in model.versions:
        ensemble = StoredModel(
            name=model.name,
            version=str(version),
            manifest=manifest,
            digest=digest_text(manifest.digest),
            default_shape=None,
            config=config,
            came_with_server=True,
        )
        try:
            model.stored[ensemble.version] = store.add_ensemble(ensemble)
        except BlindAIError as error:
            findings.refuse(model.where, str(error), error.hint)


def _resolved(step: EnsembleStep, found: Mapping[str, _Found]) -> EnsembleStep:
    member = found[step.model]
    version = step.version or str(max(member.versions))
    return replace(step, version=version, digest=member.stored[version].digest)


def _described(model: _Found) -> Json:
    return {
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in model.files.items()},
        "name": model.name,
        "versions": {version: stored.digest for version, stored in model.stored.items()},
    }
