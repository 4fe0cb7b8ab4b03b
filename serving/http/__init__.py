"""HTTP: the routes, as one Starlette app, and the listener that serves it without BentoML."""
