"""SQL of tenants and their keys."""

from __future__ import annotations

from sqlalchemy import text

# The one look across tenants: a function of the owner, for nobody's tenant is known before its key is.
RESOLVE_API_KEY = text("SELECT key_id, tenant_id, scopes FROM resolve_api_key(:sha256)")
