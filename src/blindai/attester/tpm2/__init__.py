"""A TPM 2.0 spoken to in its own commands, without a software stack between (TCG TPM 2.0 Library, parts 2 and 3).

`device.py` sends commands and reads answers, `commands.py` knows those that are used, `sealer.py` keeps a store's key.
"""
