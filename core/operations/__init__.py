"""What operators see of a deployment, across tenants, and what they do to it; every act is written down."""
