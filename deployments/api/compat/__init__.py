"""Protocols of other programs over the same service: chat completions, responses, and the API of A1111's web UI.

Each module puts a foreign body into the words of `deployments.api.wire.requests`, and our answer into those that its
clients read. Jobs, keys, budgets and limits are those of `/v1/images/generations`.
"""
