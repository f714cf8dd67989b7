"""What must always hold between the tables, as queries that return whatever breaks it."""
