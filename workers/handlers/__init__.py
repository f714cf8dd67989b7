"""One module for each kind of job: what to ask of the engine, and what to keep of the answer."""
