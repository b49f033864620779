"""The REST API under `/api/v1/`.

| file | what it is |
|---|---|
| `views.py` | what every view does: key, scope, rate, query, one transaction, headers |
| `authentication.py`, `limits.py`, `idempotency.py`, `pages.py`, `problems.py`, `fields.py` | one convention each |
| `endpoints.py`, `subscriptions.py`, … | one resource each: its representation, then its views |
| `urls.py`, `schema.py` | where they are, and the OpenAPI document |
"""
