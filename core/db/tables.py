"""Every table, in one place: what migrations are compared with."""

from __future__ import annotations

from sqlalchemy import MetaData

from core.budgets import models as budgets
from core.catalog import models as catalog
from core.concepts import models as concepts
from core.db.base import Base
from core.files import models as files
from core.idempotency import models as idempotency
from core.invariants import models as invariants
from core.jobs import models as jobs
from core.members import models as members
from core.operations import models as operations
from core.scheduling import models as scheduling
from core.selftest import models as selftest
from core.tenants import models as tenants
from core.webhooks import models as webhooks

MODULES = (
    budgets,
    catalog,
    concepts,
    files,
    idempotency,
    invariants,
    jobs,
    members,
    operations,
    scheduling,
    selftest,
    tenants,
    webhooks,
)
METADATA: MetaData = Base.metadata
