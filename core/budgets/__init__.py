"""What tenants may spend of the GPUs, and what they have spent: budgets, the ledger, quotes."""
