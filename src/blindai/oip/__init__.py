"""The Open Inference Protocol (v2): what tensors, requests and answers look like on the wire, for both ends.

- `datatypes`: the fourteen datatypes, and how many elements a shape has
- `conversion`: what a user gives (numpy, torch, lists) as an array of a datatype, without loss
- `tensors`: a named tensor, fitted to what a model expects, and its raw bytes
- `json_data`: strict JSON, and tensors written in it
- `tensor_entries`: how a tensor stands in a message (binary tensor extension)
- `rest`, `raw_request`: inference requests
- `answers`, `classification`: what comes back
- `metadata`: what a model expects and answers

Pure: no files, no network, no clock.
Leaves out: gRPC, and what only a server needs (statistics, repository, configuration).
"""
