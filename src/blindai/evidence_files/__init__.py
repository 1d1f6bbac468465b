"""Reads evidence from files as vendors and others publish them, for people who judge evidence without a server.

One module per TEE: `read_folder(folder, collateral=…)` gives the items of evidence with their endorsements.
Leaves out: the judgement (attestation/).
"""
