"""Users, the tenants they are members of, and how they sign in."""
