"""The server inside the enclave: doors, dispatch, models and their worker processes. Linux only; extra `[server]`."""
