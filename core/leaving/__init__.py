"""What a tenant takes along when it leaves, and how nothing of it stays."""
