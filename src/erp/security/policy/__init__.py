"""Policy as code: Rego modules, a guarded engine, and the one decision point of the layer."""
