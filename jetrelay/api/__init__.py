"""The REST API under `/api/v1/`.

| file | what it is |
|---|---|
| `views.py` | what every view does: key, scope, rate, query, one transaction, headers |
| `authentication.py`, `limits.py`, `idempotency.py`, `pages.py`, `problems.py`, `fields.py` | one convention each |
| `endpoints.py`, `subscriptions.py`, … | one resource each: its representation, then its views |
| `urls.py` | where they are |
| `schema.py`, `operations.py`, `shapes.py`, `examples.py` | the OpenAPI document: how it is made, and what the views do not say themselves |
| `reference.py` | where the document is served, and its page |
"""
