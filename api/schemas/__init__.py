"""What goes over the wire, one module per resource; never the tables themselves."""
